// Decoding of JavaScript arguments. The façade is typed, so a wrong type here is a plain TypeError.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "napi/handles.h"
#include "weights/tensor_table.h"

namespace c2c {

inline double number(const Napi::Object& o, const char* name) { return o.Get(name).As<Napi::Number>().DoubleValue(); }
inline int64_t integer(const Napi::Object& o, const char* name) { return o.Get(name).As<Napi::Number>().Int64Value(); }
inline bool boolean(const Napi::Object& o, const char* name) { return o.Get(name).As<Napi::Boolean>().Value(); }
inline std::string text(const Napi::Object& o, const char* name) { return o.Get(name).As<Napi::String>().Utf8Value(); }
inline int64_t integer(const Napi::Value& v) { return v.As<Napi::Number>().Int64Value(); }

inline std::vector<uint32_t> ids(const Napi::Value& value) {
  const auto array = value.As<Napi::Uint32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

template <class F>
void each(const Napi::Value& value, F f) {
  const auto array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) f(array.Get(i));
}

template <class Self>
auto unwrap(const Napi::Value& value) {
  return Self::Unwrap(value.As<Napi::Object>())->get();
}

// null or a NativeCancel.
inline CancelFlag cancel_flag(const Napi::Value& value) {
  return value.IsObject() ? unwrap<CancelHandle>(value) : std::make_shared<std::atomic<bool>>(false);
}

Options projector_options(const Napi::Object& options);
DecoderSpec decoder_spec(const Napi::Object& spec);
// `kind`, and numbers under any other name.
PolicyOptions policy_options(const Napi::Object& options);
at::ScalarType scalar_type(const std::string& name);
const char* scalar_name(at::ScalarType type);
// {kind: "cpu"} or {kind: "cuda", index}, both ways.
at::Device device_of(const Napi::Value& device);
Napi::Object device_object(Napi::Env env, at::Device device);
TensorTable tensor_table(const Napi::Object& table);
// Copies: tensors leave as JavaScript's own memory, never as external buffers, from whatever device they lie on.
Napi::Float32Array float_array(Napi::Env env, const at::Tensor& tensor);
at::Tensor float_tensor(const Napi::Value& value, std::vector<int64_t> shape);

}  // namespace c2c
