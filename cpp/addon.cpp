// Registers the classes and functions of typings/native.d.ts; nothing else.
#include <ATen/Parallel.h>
#include <torch/headeronly/version.h>

#include "cuda/cuda.h"
#include "engine/executor.h"
#include "napi/trainers.h"

namespace {

using namespace c2c;

Napi::Value info(const Napi::CallbackInfo& call) {
  auto result = Napi::Object::New(call.Env());
  result.Set("libtorch", Napi::String::New(call.Env(), TORCH_VERSION));
  result.Set("threads", Napi::Number::New(call.Env(), at::get_num_threads()));
  const std::chrono::duration<double, std::milli> stepped = Executor::instance().stepped();
  result.Set("stepMs", Napi::Number::New(call.Env(), stepped.count()));
  return result;
}

Napi::Value devices(const Napi::CallbackInfo& call) {
  auto list = Napi::Array::New(call.Env());
  uint32_t index = 0;
  for (const cuda::DeviceFacts& facts : cuda::devices()) {
    auto device = Napi::Object::New(call.Env());
    device.Set("index", Napi::Number::New(call.Env(), index));
    device.Set("name", facts.name);
    device.Set("memory", Napi::Number::New(call.Env(), static_cast<double>(facts.memory)));
    device.Set("kernels", Napi::Boolean::New(call.Env(), facts.kernels));
    list.Set(index++, device);
  }
  return list;
}

void set_threads(const Napi::CallbackInfo& call) {
  Executor::instance().set_threads(call[0].As<Napi::Number>().Int32Value());
}

Napi::Value live_handles(const Napi::CallbackInfo& call) {
  auto result = Napi::Object::New(call.Env());
  const std::initializer_list<std::pair<const char*, int>> kinds{{"model", ModelHandle::live()},
                                                                 {"fuser", FuserHandle::live()},
                                                                 {"cache", CacheHandle::live()},
                                                                 {"sampler", SamplerHandle::live()},
                                                                 {"cancel", CancelHandle::live()}};
  for (const auto& [kind, count] : kinds) result.Set(kind, Napi::Number::New(call.Env(), count));
  return result;
}

void drain(const Napi::CallbackInfo&) { Executor::instance().drain(); }

template <class Self>
Napi::FunctionReference publish(Napi::Env env, Napi::Object exports, const char* name) {
  const Napi::Function constructor = Self::define(env);
  exports.Set(name, constructor);
  return Napi::Persistent(constructor);
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* state = new State;
  env.SetInstanceData(state);
  state->bridge = Bridge::open(env);
  state->cancel = publish<CancelHandle>(env, exports, "NativeCancel");
  state->sampler = publish<SamplerHandle>(env, exports, "NativeSampler");
  state->cache = publish<CacheHandle>(env, exports, "NativeCache");
  state->model = publish<ModelHandle>(env, exports, "NativeModel");
  state->fuser = publish<FuserHandle>(env, exports, "NativeFuser");
  state->model_trainer = publish<ModelTrainerHandle>(env, exports, "NativeModelTrainer");
  state->fuser_trainer = publish<FuserTrainerHandle>(env, exports, "NativeFuserTrainer");
  exports.Set("createFuserTrainer", Napi::Function::New(env, create_fuser_trainer, "createFuserTrainer"));
  exports.Set("createModelTrainer", Napi::Function::New(env, create_model_trainer, "createModelTrainer"));
  exports.Set("loadModel", Napi::Function::New(env, load_model, "loadModel"));
  exports.Set("prefillTogether", Napi::Function::New(env, prefill_together, "prefillTogether"));
  exports.Set("loadFuser", Napi::Function::New(env, load_fuser, "loadFuser"));
  exports.Set("fuse", Napi::Function::New(env, fuse_caches, "fuse"));
  exports.Set("checkCacheFile", Napi::Function::New(env, check_cache_file, "checkCacheFile"));
  exports.Set("info", Napi::Function::New(env, info, "info"));
  exports.Set("devices", Napi::Function::New(env, devices, "devices"));
  exports.Set("setThreads", Napi::Function::New(env, set_threads, "setThreads"));
  exports.Set("liveHandles", Napi::Function::New(env, live_handles, "liveHandles"));
  exports.Set("drain", Napi::Function::New(env, drain, "drain"));
  return exports;
}

}  // namespace

NODE_API_MODULE(cache_to_cache, init)
