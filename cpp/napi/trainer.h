// What the trainers' handles share: their state, one step of the optimiser.
#pragma once
#include <ATen/core/grad_mode.h>

#include "napi/arguments.h"
#include "train/state.h"

namespace c2c {

inline AdamWOptions adamw_options(const Napi::Object& o) {
  return {number(o, "beta1"), number(o, "beta2"), number(o, "eps"), number(o, "weightDecay")};
}

inline std::vector<int64_t> rows(const Napi::Value& value) {
  const auto array = value.As<Napi::Uint32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

// parameters(), read(), write(), load(), restore() and update() of a handle whose native object has parameters(),
// optimizer() and update().
template <class Self, class T>
class TrainerHandle : public Handle<Self, T> {
 public:
  using Handle<Self, T>::Handle;

  Napi::Value parameters(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    return sync(env, [&] {
      auto list = Napi::Array::New(env);
      uint32_t i = 0;
      for (const auto& spec : this->get()->parameters().specs()) {
        auto entry = Napi::Object::New(env);
        auto shape = Napi::Array::New(env);
        for (uint32_t d = 0; d < spec.shape.size(); ++d)
          shape.Set(d, Napi::Number::New(env, static_cast<double>(spec.shape[d])));
        entry.Set("name", spec.name);
        entry.Set("shape", shape);
        list.Set(i++, entry);
      }
      return list;
    });
  }

  // On the executor, so that it never reads what a step is writing.
  Napi::Value read(const Napi::CallbackInfo& info) {
    return sync(info.Env(), [&] {
      const auto trainer = this->get();
      const std::string part = info[0].As<Napi::String>().Utf8Value(), name = info[1].As<Napi::String>().Utf8Value();
      return async(info.Env(), nullptr, [trainer, part, name]() -> Reply {
        const at::Tensor tensor = state_tensor(trainer->parameters(), trainer->optimizer(), part, name).clone();
        return [tensor](Napi::Env e) -> Napi::Value { return float_array(e, tensor); };
      });
    });
  }

  Napi::Value write(const Napi::CallbackInfo& info) {
    return sync(info.Env(), [&] {
      const auto trainer = this->get();
      const std::string name = info[0].As<Napi::String>().Utf8Value();
      const at::Tensor part = trainer->parameters().part(trainer->parameters().values(), name);
      const at::Tensor values = float_tensor(info[1], part.sizes().vec());
      return async(info.Env(), nullptr, [trainer, part, values]() -> Reply {
        const at::NoGradGuard no_grad;
        part.copy_(values);
        return [](Napi::Env e) -> Napi::Value { return e.Undefined(); };
      });
    });
  }

  Napi::Value load(const Napi::CallbackInfo& info) {
    return sync(info.Env(), [&] {
      const auto trainer = this->get();
      const auto table = std::make_shared<TensorTable>(tensor_table(info[0].As<Napi::Object>()));
      return async(info.Env(), nullptr, [trainer, table]() -> Reply {
        load_weights(trainer->parameters(), map_tensors(*table, at::kFloat));
        return [](Napi::Env e) -> Napi::Value { return e.Undefined(); };
      });
    });
  }

  Napi::Value restore(const Napi::CallbackInfo& info) {
    return sync(info.Env(), [&] {
      const auto trainer = this->get();
      const auto table = std::make_shared<TensorTable>(tensor_table(info[0].As<Napi::Object>()));
      const int64_t steps = integer(info[1]);
      return async(info.Env(), nullptr, [trainer, table, steps]() -> Reply {
        restore_state(trainer->parameters(), trainer->optimizer(), steps, map_tensors(*table, at::kFloat));
        return [](Napi::Env e) -> Napi::Value { return e.Undefined(); };
      });
    });
  }

  Napi::Value update(const Napi::CallbackInfo& info) {
    return sync(info.Env(), [&] {
      const auto trainer = this->get();
      const double rate = info[0].As<Napi::Number>().DoubleValue();
      return async(info.Env(), nullptr, [trainer, rate]() -> Reply {
        const double norm = trainer->update(rate);
        return [norm](Napi::Env e) -> Napi::Value { return Napi::Number::New(e, norm); };
      });
    });
  }
};

}  // namespace c2c
