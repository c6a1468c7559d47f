#include "napi/arguments.h"

namespace c2c {

Options projector_options(const Napi::Object& o) {
  Options options;
  each(o.GetPropertyNames(), [&](const Napi::Value& key) {
    const std::string name = key.As<Napi::String>().Utf8Value();
    const Napi::Value value = o.Get(name);
    if (value.IsNumber()) options[name] = value.As<Napi::Number>().DoubleValue();
    if (value.IsBoolean()) options[name] = value.As<Napi::Boolean>().Value();
    if (value.IsString()) options[name] = value.As<Napi::String>().Utf8Value();
  });
  return options;
}

namespace {

HeadShape head_shape(const Napi::Object& o) { return {integer(o, "kvHeads"), integer(o, "headDim")}; }

struct ProjectorSpec {
  std::string kind, prefix;
  int64_t receiver_layer, sharer_layer;
  Options options;
};

ProjectorSpec projector_spec(const Napi::Object& o) {
  return {text(o, "kind"), text(o, "prefix"), integer(o, "receiverLayer"), integer(o, "sharerLayer"),
          projector_options(o.Get("options").As<Napi::Object>())};
}

Napi::Value gate(Napi::Env env, const std::optional<double>& logit) {
  return logit ? Napi::Number::New(env, *logit).As<Napi::Value>() : env.Null();
}

}  // namespace

Napi::Function FuserHandle::define(Napi::Env env) {
  return DefineClass(
      env, "NativeFuser",
      {InstanceAccessor<&FuserHandle::bytes>("bytes"), InstanceMethod("gates", &FuserHandle::gates),
       InstanceMethod("project", &FuserHandle::project), InstanceMethod("dispose", &FuserHandle::dispose)});
}

Napi::Value FuserHandle::bytes(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] { return Napi::Number::New(info.Env(), static_cast<double>(get()->bytes())); });
}

Napi::Value FuserHandle::gates(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] {
    auto array = Napi::Array::New(info.Env());
    uint32_t i = 0;
    for (const auto& layer : get()->layers) {
      auto entry = Napi::Object::New(info.Env());
      entry.Set("key", gate(info.Env(), layer.projector->key_gate()));
      entry.Set("value", gate(info.Env(), layer.projector->value_gate()));
      array.Set(i++, entry);
    }
    return array;
  });
}

Napi::Value FuserHandle::project(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return sync(env, [&] {
    const auto fuser = get();
    const int64_t index = integer(info[0]), tokens = integer(info[2]);
    if (index < 0 || index >= static_cast<int64_t>(fuser->layers.size())) option_invalid("index", "no such projector");
    const auto o = info[1].As<Napi::Object>();
    const std::vector<int64_t> theirs{tokens, fuser->sharer.kv_heads, fuser->sharer.head_dim};
    const std::vector<int64_t> ours{tokens, fuser->receiver.kv_heads, fuser->receiver.head_dim};
    const Rows sharer{float_tensor(o.Get("sharerKey"), theirs), float_tensor(o.Get("sharerValue"), theirs)};
    const Rows receiver{float_tensor(o.Get("receiverKey"), ours), float_tensor(o.Get("receiverValue"), ours)};
    std::shared_ptr<Noise> noise;
    if (info[3].IsArray()) {
      const auto pair = info[3].As<Napi::Array>();
      if (pair.Length() != 2) option_invalid("noise", "one draw for keys and one for values");
      const std::vector<int64_t> shape{tokens, fuser->receiver.kv_heads};
      noise = std::make_shared<Noise>(Noise{float_tensor(pair.Get(0U), shape), float_tensor(pair.Get(1U), shape)});
    }
    const double temperature = info[4].As<Napi::Number>().DoubleValue();
    return async(env, nullptr, [=]() -> Reply {
      const auto there = [&](const Rows& rows) {
        return Rows{rows.key.to(fuser->device), rows.value.to(fuser->device)};
      };
      if (noise) *noise = {noise->key.to(fuser->device), noise->value.to(fuser->device)};
      const Projected out = fuser->layers[static_cast<size_t>(index)].projector->project(there(sharer), there(receiver),
                                                                                         noise.get(), temperature);
      const at::Tensor key = out.key.defined() ? out.key : receiver.key;
      const at::Tensor value = out.value.defined() ? out.value : receiver.value;
      return [key, value](Napi::Env e) -> Napi::Value {
        auto result = Napi::Object::New(e);
        result.Set("key", float_array(e, key));
        result.Set("value", float_array(e, value));
        return result;
      };
    });
  });
}

Napi::Value load_fuser(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return sync(env, [&] {
    const auto o = info[0].As<Napi::Object>();
    const at::ScalarType dtype = scalar_type(text(o, "dtype"));
    const at::Device device = device_of(o.Get("device"));
    const HeadShape receiver = head_shape(o.Get("receiver").As<Napi::Object>());
    const HeadShape sharer = head_shape(o.Get("sharer").As<Napi::Object>());
    std::vector<ProjectorSpec> specs;
    each(o.Get("projectors"), [&](const Napi::Value& p) { specs.push_back(projector_spec(p.As<Napi::Object>())); });
    const auto table = std::make_shared<TensorTable>(tensor_table(info[1].As<Napi::Object>()));
    const CancelFlag cancel = cancel_flag(info[2]);
    return async(env, cancel, [=]() -> Reply {
      auto tensors = map_tensors(*table, dtype);
      auto fuser = std::make_shared<Fuser>();
      fuser->receiver = receiver;
      fuser->sharer = sharer;
      fuser->dtype = dtype;
      fuser->device = device;
      for (const auto& spec : specs) {
        check(cancel);
        Tensors own;
        for (auto it = tensors.begin(); it != tensors.end();) {
          if (!it->first.starts_with(spec.prefix)) {
            ++it;
            continue;
          }
          own.emplace(it->first.substr(spec.prefix.size()), it->second.to(device));
          it = tensors.erase(it);
        }
        fuser->layers.push_back({spec.receiver_layer, spec.sharer_layer,
                                 make_projector(spec.kind, spec.options, receiver, sharer, std::move(own), dtype)});
      }
      if (!tensors.empty()) shape_mismatch(tensors.begin()->first, {}, tensors.begin()->second.sizes().vec());
      return [fuser](Napi::Env e) -> Napi::Value { return FuserHandle::make(e, fuser, fuser->bytes()); };
    });
  });
}

Napi::Value fuse_caches(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return sync(env, [&] {
    struct Work {
      std::unique_ptr<Lease> receiver;
      std::vector<std::unique_ptr<Lease>> sharers;
      std::vector<Contribution> contributions;
    };
    auto work = std::make_shared<Work>();
    work->receiver = std::make_unique<Lease>(unwrap<CacheHandle>(info[0]), true, "fuse");
    each(info[1], [&](const Napi::Value& value) {
      const auto o = value.As<Napi::Object>();
      auto lease = std::make_unique<Lease>(unwrap<CacheHandle>(o.Get("sharer")), false, "fuse");
      Contribution contribution{unwrap<FuserHandle>(o.Get("fuser")), lease->shared(), {}};
      const auto spans = ids(o.Get("spans"));
      for (size_t i = 0; i + 3 < spans.size(); i += 4) {
        contribution.spans.push_back({spans[i], spans[i + 1], spans[i + 2], spans[i + 3]});
      }
      work->contributions.push_back(std::move(contribution));
      work->sharers.push_back(std::move(lease));
    });
    const bool parallel = info[2].As<Napi::String>().Utf8Value() == "parallel";
    const CancelFlag cancel = cancel_flag(info[3]);
    return async(env, cancel, [work, parallel, cancel]() -> Reply {
      auto reports = c2c::fuse(work->receiver->cache(), work->contributions, parallel, cancel);
      return [reports = std::move(reports)](Napi::Env e) -> Napi::Value {
        auto out = Napi::Array::New(e);
        for (uint32_t i = 0; i < reports.size(); ++i) {
          auto report = Napi::Object::New(e);
          report.Set("positions", Napi::Number::New(e, static_cast<double>(reports[i].positions)));
          report.Set("ms", Napi::Number::New(e, reports[i].ms));
          auto layers = Napi::Array::New(e);
          for (uint32_t j = 0; j < reports[i].layers.size(); ++j) {
            const auto& l = reports[i].layers[j];
            auto layer = Napi::Object::New(e);
            layer.Set("layer", Napi::Number::New(e, static_cast<double>(l.layer)));
            layer.Set("key", Napi::Boolean::New(e, l.key));
            layer.Set("value", Napi::Boolean::New(e, l.value));
            layer.Set("keyWeight", Napi::Number::New(e, l.key_weight));
            layer.Set("valueWeight", Napi::Number::New(e, l.value_weight));
            layers.Set(j, layer);
          }
          report.Set("layers", layers);
          out.Set(i, report);
        }
        return out;
      };
    });
  });
}

}  // namespace c2c
