#include "napi/trainers.h"
#include "train/random.h"

namespace c2c {

namespace {

Reading reading(const Napi::Object& o) {
  return {ids(o.Get("tokens")), ids(o.Get("positions")), rows(o.Get("lengths"))};
}

void check_ids(const Reading& reading, const Decoder& model, const char* option) {
  for (const uint32_t id : reading.tokens)
    if (id >= model.spec().vocab) option_invalid(option, "id " + std::to_string(id) + " is outside the vocabulary");
  for (const uint32_t position : reading.positions)
    if (position >= model.spec().context) option_invalid(option, "a position is past the model's context");
}

std::shared_ptr<FuserBatch> fuser_batch(const Napi::Object& o, const FuserTrainer& trainer) {
  auto batch = std::make_shared<FuserBatch>();
  batch->receiver = reading(o.Get("receiver").As<Napi::Object>());
  batch->sharer = reading(o.Get("sharer").As<Napi::Object>());
  check_ids(batch->receiver, trainer.receiver(), "receiver");
  check_ids(batch->sharer, trainer.sharer(), "sharer");
  batch->section_counts = rows(o.Get("sectionCounts"));
  batch->section_ends = rows(o.Get("sectionEnds"));
  const auto fused = rows(o.Get("fused"));
  for (size_t i = 0; i + 3 < fused.size(); i += 4)
    batch->fused.push_back({fused[i], fused[i + 1], fused[i + 2], fused[i + 3]});
  batch->target_rows = rows(o.Get("targetRows"));
  batch->target_ids = rows(o.Get("targetIds"));
  for (const int64_t id : batch->target_ids)
    if (id >= trainer.receiver().spec().vocab) option_invalid("targets", "an id is outside the vocabulary");
  return batch;
}

Napi::Value logit(Napi::Env env, const std::optional<double>& value) {
  return value ? Napi::Number::New(env, *value).As<Napi::Value>() : env.Null();
}

}  // namespace

template <>
Napi::Function Handle<FuserTrainerHandle, FuserTrainer>::constructor(Napi::Env env) {
  return env.GetInstanceData<State>()->fuser_trainer.Value();
}

Napi::Function FuserTrainerHandle::define(Napi::Env env) {
  using Self = FuserTrainerHandle;
  return DefineClass(env, "NativeFuserTrainer",
                     {InstanceMethod("parameters", &Self::parameters), InstanceMethod("read", &Self::read),
                      InstanceMethod("write", &Self::write), InstanceMethod("load", &Self::load),
                      InstanceMethod("restore", &Self::restore), InstanceMethod("accumulate", &Self::accumulate),
                      InstanceMethod("evaluate", &Self::evaluate), InstanceMethod("update", &Self::update),
                      InstanceMethod("gates", &Self::gates), InstanceMethod("fuser", &Self::fuser),
                      InstanceMethod("dispose", &Self::dispose)});
}

Napi::Value FuserTrainerHandle::accumulate(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] {
    const auto trainer = get();
    const auto batch = fuser_batch(info[0].As<Napi::Object>(), *trainer);
    const auto o = info[1].As<Napi::Object>();
    auto draw = std::make_shared<TrainingDraw>();
    bool lossless = true;
    draw->seed =
        mix({o.Get("seed").As<Napi::BigInt>().Uint64Value(&lossless), static_cast<uint64_t>(integer(o, "counter"))});
    draw->temperature = number(o, "temperature");
    draw->scale = number(o, "scale");
    if (o.Get("noise").IsArray()) {
      const int64_t heads = trainer->receiver().spec().kv_heads;
      each(o.Get("noise"), [&](const Napi::Value& value) {
        const auto count = static_cast<int64_t>(value.As<Napi::Float32Array>().ElementLength());
        draw->noise.push_back(float_tensor(value, {count / heads, heads}));
      });
    }
    const CancelFlag cancel = cancel_flag(info[2]);
    return async(info.Env(), cancel, [trainer, batch, draw, cancel]() -> Reply {
      const double loss = trainer->accumulate(*batch, *draw, cancel);
      return [loss](Napi::Env e) -> Napi::Value { return Napi::Number::New(e, loss); };
    });
  });
}

Napi::Value FuserTrainerHandle::evaluate(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] {
    const auto trainer = get();
    const auto batch = fuser_batch(info[0].As<Napi::Object>(), *trainer);
    const CancelFlag cancel = cancel_flag(info[1]);
    return async(info.Env(), cancel, [trainer, batch, cancel]() -> Reply {
      const double loss = trainer->evaluate(*batch, cancel);
      return [loss](Napi::Env e) -> Napi::Value { return Napi::Number::New(e, loss); };
    });
  });
}

Napi::Value FuserTrainerHandle::gates(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return sync(env, [&] {
    auto list = Napi::Array::New(env);
    uint32_t i = 0;
    for (const auto& [key, value] : get()->gates()) {
      auto entry = Napi::Object::New(env);
      entry.Set("key", logit(env, key));
      entry.Set("value", logit(env, value));
      list.Set(i++, entry);
    }
    return list;
  });
}

Napi::Value FuserTrainerHandle::fuser(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] {
    const auto trainer = get();
    const at::ScalarType dtype = scalar_type(info[0].As<Napi::String>().Utf8Value());
    return async(info.Env(), nullptr, [trainer, dtype]() -> Reply {
      const auto fuser = trainer->fuser(dtype);
      return [fuser](Napi::Env e) -> Napi::Value { return FuserHandle::make(e, fuser, fuser->bytes()); };
    });
  });
}

Napi::Value create_fuser_trainer(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return sync(env, [&] {
    const auto receiver = unwrap<ModelHandle>(info[0]), sharer = unwrap<ModelHandle>(info[1]);
    const auto o = info[2].As<Napi::Object>();
    FuserTrainerOptions options;
    options.optimizer = adamw_options(o);
    options.compute = scalar_type(text(o, "dtype"));
    options.clip_norm = number(o, "clipNorm");
    options.gumbel = boolean(o, "gumbel");
    options.recompute = boolean(o, "recompute");
    bool lossless = true;
    const uint64_t seed = o.Get("seed").As<Napi::BigInt>().Uint64Value(&lossless);
    std::vector<TrainedProjector> projectors;
    each(o.Get("projectors"), [&](const Napi::Value& value) {
      const auto p = value.As<Napi::Object>();
      projectors.push_back({text(p, "kind"), text(p, "prefix"), integer(p, "receiverLayer"), integer(p, "sharerLayer"),
                            projector_options(p.Get("options").As<Napi::Object>())});
    });
    return async(env, nullptr, [=]() -> Reply {
      auto trainer = std::make_shared<FuserTrainer>(receiver, sharer, projectors, options);
      trainer->init(seed);
      return [trainer](Napi::Env e) -> Napi::Value {
        // Values, gradients and two moments.
        const auto bytes = static_cast<int64_t>(4 * trainer->parameters().values().nbytes());
        return FuserTrainerHandle::make(e, trainer, bytes);
      };
    });
  });
}

}  // namespace c2c
