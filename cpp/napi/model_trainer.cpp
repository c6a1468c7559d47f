#include "napi/trainers.h"

namespace c2c {

template <>
Napi::Function Handle<ModelTrainerHandle, ModelTrainer>::constructor(Napi::Env env) {
  return env.GetInstanceData<State>()->model_trainer.Value();
}

Napi::Function ModelTrainerHandle::define(Napi::Env env) {
  using Self = ModelTrainerHandle;
  return DefineClass(env, "NativeModelTrainer",
                     {InstanceMethod("parameters", &Self::parameters), InstanceMethod("read", &Self::read),
                      InstanceMethod("write", &Self::write), InstanceMethod("load", &Self::load),
                      InstanceMethod("restore", &Self::restore), InstanceMethod("accumulate", &Self::accumulate),
                      InstanceMethod("update", &Self::update), InstanceMethod("dispose", &Self::dispose)});
}

Napi::Value ModelTrainerHandle::accumulate(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] {
    const auto trainer = get();
    const auto o = info[0].As<Napi::Object>();
    auto batch = std::make_shared<DocumentBatch>(DocumentBatch{ids(o.Get("tokens")), rows(o.Get("lengths")),
                                                               rows(o.Get("targetRows")), rows(o.Get("targetIds"))});
    const auto vocab = trainer->spec().vocab;
    const auto inside = [](const auto& values, int64_t limit) {
      return std::all_of(values.begin(), values.end(), [limit](auto v) { return static_cast<int64_t>(v) < limit; });
    };
    if (!inside(batch->tokens, vocab) || !inside(batch->target_ids, vocab))
      option_invalid("tokens", "an id is outside the vocabulary");
    if (!inside(batch->target_rows, static_cast<int64_t>(batch->tokens.size())) ||
        batch->target_rows.size() != batch->target_ids.size())
      option_invalid("targets", "they are not rows of the batch");
    const CancelFlag cancel = cancel_flag(info[1]);
    return async(info.Env(), cancel, [trainer, batch, cancel]() -> Reply {
      const double loss = trainer->accumulate(*batch, cancel);
      return [loss](Napi::Env e) -> Napi::Value { return Napi::Number::New(e, loss); };
    });
  });
}

Napi::Value create_model_trainer(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return sync(env, [&] {
    auto spec = std::make_shared<DecoderSpec>(decoder_spec(info[0].As<Napi::Object>()));
    const auto o = info[1].As<Napi::Object>();
    ModelTrainerOptions options;
    options.optimizer = adamw_options(o);
    options.compute = scalar_type(text(o, "dtype"));
    options.clip_norm = number(o, "clipNorm");
    options.exit_layers = rows(o.Get("exitLayers"));
    options.exit_weight = number(o, "exitWeight");
    options.recompute = boolean(o, "recompute");
    bool lossless = true;
    const uint64_t seed = o.Get("seed").As<Napi::BigInt>().Uint64Value(&lossless);
    const double range = number(o, "initRange");
    return async(env, nullptr, [spec, options, seed, range]() -> Reply {
      auto trainer = std::make_shared<ModelTrainer>(std::move(*spec), options);
      trainer->init(seed, range);
      return [trainer](Napi::Env e) -> Napi::Value {
        // Values, gradients and two moments.
        const auto bytes = static_cast<int64_t>(4 * trainer->parameters().values().nbytes());
        return ModelTrainerHandle::make(e, trainer, bytes);
      };
    });
  });
}

}  // namespace c2c
