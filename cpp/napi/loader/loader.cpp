// Opens libtorch's libraries for the whole process, so that the main addon finds them by name. Has no libtorch itself.
#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif
#ifdef __linux__
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>
#endif
#include <napi.h>

#include <string>

namespace {

#ifdef _WIN32

// The library and, from its own folder, what it depends on; the reason in words, or nothing.
std::string open_library(const Napi::String& path) {
  const std::u16string name = path.Utf16Value();
  const auto* wide = reinterpret_cast<const wchar_t*>(name.c_str());
  if (LoadLibraryExW(wide, nullptr, LOAD_LIBRARY_SEARCH_DEFAULT_DIRS | LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR)) return {};
  return path.Utf8Value() + " cannot be opened: Windows error " + std::to_string(GetLastError());
}

#else

#ifdef __linux__

// Unmaps what a library's start alone has read: names, relocations, the code that registers operations. What is read
// again comes from the system's cache of files. Segments that are written to keep their pages, and so does a library
// whose code was written to.
int let_pages_go(dl_phdr_info* library, size_t, void* wanted) {
  if (library->dlpi_addr != static_cast<const link_map*>(wanted)->l_addr) return 0;
  const auto page = static_cast<ElfW(Addr)>(sysconf(_SC_PAGESIZE));
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = library->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
    const ElfW(Addr) begin = (library->dlpi_addr + segment.p_vaddr + page - 1) / page * page;
    const ElfW(Addr) end = (library->dlpi_addr + segment.p_vaddr + segment.p_memsz) / page * page;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
  return 1;
}

bool code_is_written_to(const link_map* library) {
  for (const ElfW(Dyn)* entry = library->l_ld; entry->d_tag != DT_NULL; ++entry)
    if (entry->d_tag == DT_TEXTREL || (entry->d_tag == DT_FLAGS && (entry->d_un.d_val & DF_TEXTREL) != 0)) return true;
  return false;
}

void forget_start(void* handle) {
  link_map* library = nullptr;
  if (dlinfo(handle, RTLD_DI_LINKMAP, &library) != 0 || code_is_written_to(library)) return;
  dl_iterate_phdr(let_pages_go, library);
}

#else

void forget_start(void*) {}

#endif

std::string open_library(const Napi::String& path) {
  const std::string name = path.Utf8Value();
  dlerror();
  if (void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_GLOBAL); handle != nullptr) {
    forget_start(handle);
    return {};
  }
  const char* reason = dlerror();
  return reason != nullptr ? reason : name + " cannot be opened";
}

#endif

// open(path): makes the library's symbols visible to all that is loaded after it; throws what the system says.
Napi::Value open(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsString()) throw Napi::TypeError::New(env, "open takes a path");
  const std::string fault = open_library(info[0].As<Napi::String>());
  if (!fault.empty()) throw Napi::Error::New(env, fault);
  return env.Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("open", Napi::Function::New(env, open, "open"));
  return exports;
}

}  // namespace

NODE_API_MODULE(loader, init)
