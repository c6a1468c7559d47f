// Opens libtorch's libraries for the whole process, so that the main addon finds them by name. Has no libtorch itself.
#include <dlfcn.h>
#include <napi.h>

#include <string>

namespace {

// open(path): makes the library's symbols visible to all that is loaded after it; throws what the system says.
Napi::Value open(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsString()) throw Napi::TypeError::New(env, "open takes a path");
  const std::string path = info[0].As<Napi::String>();
  dlerror();
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    const char* reason = dlerror();
    throw Napi::Error::New(env, reason != nullptr ? reason : path + " cannot be opened");
  }
  return env.Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("open", Napi::Function::New(env, open, "open"));
  return exports;
}

}  // namespace

NODE_API_MODULE(loader, init)
