// Opens libtorch's libraries for the whole process, so that the main addon finds them by name. Has no libtorch itself.
#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
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

std::string open_library(const Napi::String& path) {
  const std::string name = path.Utf8Value();
  dlerror();
  if (dlopen(name.c_str(), RTLD_NOW | RTLD_GLOBAL) != nullptr) return {};
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
