// The classes that JavaScript holds. Each owns one share of a native object and gives it up on dispose().
#pragma once
#include <memory>
#include <mutex>
#include <string>

#include "cache/kv_cache.h"
#include "decode/sampler.h"
#include "fuser/fuser.h"
#include "model/decoder.h"
#include "napi/bridge.h"
#include "napi/setup.h"

namespace c2c {

// A cache with its lock: one writer, or readers. The numbers are what JavaScript may see while a job writes.
struct CacheBox {
  explicit CacheBox(std::shared_ptr<KvCache> cache_) : cache(std::move(cache_)) { publish(); }
  void publish() {
    length = cache->length();
    capacity = cache->capacity();
    bytes = cache->bytes();
  }
  std::shared_ptr<KvCache> cache;
  std::atomic<int> users{0};  // -1: one writer; n: readers
  std::atomic<int64_t> length{0}, capacity{0}, bytes{0};
};

// Holds a box for writing or reading as long as it lives; CACHE_BUSY where it cannot.
class Lease {
 public:
  Lease(std::shared_ptr<CacheBox> box, bool write, const std::string& operation);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  KvCache& cache() const { return *box_->cache; }
  const std::shared_ptr<KvCache>& shared() const { return box_->cache; }

 private:
  std::shared_ptr<CacheBox> box_;
  bool write_;
};

// What all handle classes share: a share of T, and DISPOSED once it is given up.
template <class Self, class T>
class Handle : public Napi::ObjectWrap<Self> {
 public:
  explicit Handle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Self>(info) {}
  static Napi::Object make(Napi::Env env, std::shared_ptr<T> native, int64_t bytes) {
    Napi::Object object = constructor(env).New({});
    Self* self = Self::Unwrap(object);
    self->hold(std::move(native));
    self->external_ = bytes;
    Napi::MemoryManagement::AdjustExternalMemory(env, bytes);
    return object;
  }
  const std::shared_ptr<T>& get() const {
    if (!native_)
      throw Error("DISPOSED", std::string(Self::kName) + " is disposed", {{"handle", std::string(Self::kName)}});
    return native_;
  }
  ~Handle() override { hold(nullptr); }
  void Finalize(Napi::Env env) override { release(env); }
  void dispose(const Napi::CallbackInfo& info) { release(info.Env()); }
  static Napi::Function constructor(Napi::Env env);
  // How many of these hold a native object now, in all environments of the process.
  static int live() { return live_.load(); }

 protected:
  void hold(std::shared_ptr<T> native) {
    live_ += (native != nullptr) - (native_ != nullptr);
    native_ = std::move(native);
  }
  void release(Napi::Env env) {
    if (external_ != 0) Napi::MemoryManagement::AdjustExternalMemory(env, -external_);
    external_ = 0;
    hold(nullptr);
  }
  std::shared_ptr<T> native_;
  int64_t external_ = 0;

 private:
  inline static std::atomic<int> live_{0};
};

class CancelHandle : public Handle<CancelHandle, std::atomic<bool>> {
 public:
  static constexpr const char* kName = "cancel";
  explicit CancelHandle(const Napi::CallbackInfo& info);
  static Napi::Function define(Napi::Env env);
  void cancel(const Napi::CallbackInfo& info);
};

class SamplerHandle : public Handle<SamplerHandle, Sampler> {
 public:
  static constexpr const char* kName = "generation";
  explicit SamplerHandle(const Napi::CallbackInfo& info);
  static Napi::Function define(Napi::Env env);
  Napi::Value pick(const Napi::CallbackInfo& info);
};

class CacheHandle : public Handle<CacheHandle, CacheBox> {
 public:
  static constexpr const char* kName = "cache";
  using Handle::Handle;
  static Napi::Function define(Napi::Env env);
  static Napi::Object wrap(Napi::Env env, std::shared_ptr<KvCache> cache);
  Napi::Value length(const Napi::CallbackInfo& info);
  Napi::Value capacity(const Napi::CallbackInfo& info);
  Napi::Value bytes(const Napi::CallbackInfo& info);
  Napi::Value most(const Napi::CallbackInfo& info);
  Napi::Value tokens(const Napi::CallbackInfo& info);
  Napi::Value positions(const Napi::CallbackInfo& info);
  Napi::Value fork(const Napi::CallbackInfo& info);
  void truncate(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  void write(const Napi::CallbackInfo& info);
  void append(const Napi::CallbackInfo& info);
  Napi::Value slice(const Napi::CallbackInfo& info);
  void erase(const Napi::CallbackInfo& info);
  void shift(const Napi::CallbackInfo& info);
  Napi::Value quantize(const Napi::CallbackInfo& info);
  Napi::Value plan(const Napi::CallbackInfo& info);
  Napi::Value save(const Napi::CallbackInfo& info);
};

class ModelHandle : public Handle<ModelHandle, Decoder> {
 public:
  static constexpr const char* kName = "model";
  using Handle::Handle;
  static Napi::Function define(Napi::Env env);
  Napi::Value bytes(const Napi::CallbackInfo& info);
  Napi::Value dtype(const Napi::CallbackInfo& info);
  Napi::Value cache(const Napi::CallbackInfo& info);
  Napi::Value load_cache(const Napi::CallbackInfo& info);
  Napi::Value forward(const Napi::CallbackInfo& info);
  Napi::Value step(const Napi::CallbackInfo& info);
};

class FuserHandle : public Handle<FuserHandle, Fuser> {
 public:
  static constexpr const char* kName = "fuser";
  using Handle::Handle;
  static Napi::Function define(Napi::Env env);
  Napi::Value bytes(const Napi::CallbackInfo& info);
  Napi::Value gates(const Napi::CallbackInfo& info);
  Napi::Value project(const Napi::CallbackInfo& info);
};

Napi::Value load_model(const Napi::CallbackInfo& info);
Napi::Value prefill_together(const Napi::CallbackInfo& info);
Napi::Value load_fuser(const Napi::CallbackInfo& info);
Napi::Value fuse_caches(const Napi::CallbackInfo& info);
Napi::Value check_cache_file(const Napi::CallbackInfo& info);

// The addon's state of one environment.
struct State {
  std::shared_ptr<Bridge> bridge;
  Napi::FunctionReference cancel, sampler, cache, model, fuser, model_trainer, fuser_trainer;
};

}  // namespace c2c
