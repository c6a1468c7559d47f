#include "napi/handles.h"

#include "napi/arguments.h"

namespace c2c {

// ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────────

Lease::Lease(std::shared_ptr<CacheBox> box, bool write, const std::string& operation)
    : box_(std::move(box)), write_(write) {
  int users = box_->users.load();
  do {
    if (write ? users != 0 : users < 0) {
      throw Error("CACHE_BUSY", "the cache is in use: " + operation, {{"operation", operation}});
    }
  } while (!box_->users.compare_exchange_weak(users, write ? -1 : users + 1));
}

Lease::~Lease() {
  if (write_) {
    box_->publish();
    box_->users.store(0);
  } else {
    box_->users.fetch_sub(1);
  }
}

// ── constructors ─────────────────────────────────────────────────────────────────────────────────────────────────────

namespace {
State& state(Napi::Env env) { return *env.GetInstanceData<State>(); }
}  // namespace

std::shared_ptr<Bridge> bridge(Napi::Env env) { return state(env).bridge; }

template <>
Napi::Function Handle<CancelHandle, std::atomic<bool>>::constructor(Napi::Env env) {
  return state(env).cancel.Value();
}
template <>
Napi::Function Handle<SamplerHandle, Sampler>::constructor(Napi::Env env) {
  return state(env).sampler.Value();
}
template <>
Napi::Function Handle<CacheHandle, CacheBox>::constructor(Napi::Env env) {
  return state(env).cache.Value();
}
template <>
Napi::Function Handle<ModelHandle, Decoder>::constructor(Napi::Env env) {
  return state(env).model.Value();
}
template <>
Napi::Function Handle<FuserHandle, Fuser>::constructor(Napi::Env env) {
  return state(env).fuser.Value();
}

// ── cancel ───────────────────────────────────────────────────────────────────────────────────────────────────────────

CancelHandle::CancelHandle(const Napi::CallbackInfo& info) : Handle(info) {
  hold(std::make_shared<std::atomic<bool>>(false));
}

Napi::Function CancelHandle::define(Napi::Env env) {
  return DefineClass(env, "NativeCancel", {InstanceMethod("cancel", &CancelHandle::cancel)});
}

void CancelHandle::cancel(const Napi::CallbackInfo&) { native_->store(true); }

// ── sampler ──────────────────────────────────────────────────────────────────────────────────────────────────────────

SamplerHandle::SamplerHandle(const Napi::CallbackInfo& info) : Handle(info) {
  const auto o = info[0].As<Napi::Object>();
  bool lossless = true;
  hold(std::make_shared<Sampler>(
      SamplerOptions{number(o, "temperature"), integer(o, "topK"), number(o, "topP"), number(o, "minP"),
                     o.Get("seed").As<Napi::BigInt>().Uint64Value(&lossless), number(o, "repetitionPenalty"),
                     number(o, "presencePenalty"), number(o, "frequencyPenalty"), ids(o.Get("history"))}));
}

Napi::Function SamplerHandle::define(Napi::Env env) {
  return DefineClass(env, "NativeSampler", {InstanceMethod("pick", &SamplerHandle::pick)});
}

Napi::Value SamplerHandle::pick(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&]() -> Napi::Value {
    const auto row = info[0].As<Napi::Float32Array>();
    return Napi::Number::New(info.Env(), get()->pick(row.Data(), static_cast<int64_t>(row.ElementLength())));
  });
}

}  // namespace c2c
