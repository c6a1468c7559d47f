#include "napi/arguments.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>

namespace c2c {

at::ScalarType scalar_type(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  throw Error("UNSUPPORTED", "dtype " + name + " on cpu",
              {{"what", "dtype " + name + " on cpu"}, {"supported", std::vector<std::string>{"float32", "bfloat16"}}});
}

at::Device device_of(const Napi::Value& device) {
  const auto o = device.As<Napi::Object>();
  if (text(o, "kind") == "cpu") return at::kCPU;
  return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(integer(o, "index")));
}

Napi::Object device_object(Napi::Env env, at::Device device) {
  auto object = Napi::Object::New(env);
  object.Set("kind", device.is_cpu() ? "cpu" : "cuda");
  if (!device.is_cpu()) object.Set("index", Napi::Number::New(env, device.has_index() ? device.index() : 0));
  return object;
}

const char* scalar_name(at::ScalarType type) { return type == at::kFloat ? "float32" : "bfloat16"; }

PolicyOptions policy_options(const Napi::Object& options) {
  PolicyOptions out{text(options, "kind"), {}};
  each(options.GetPropertyNames(), [&](const Napi::Value& key) {
    const std::string name = key.As<Napi::String>().Utf8Value();
    const Napi::Value value = options.Get(name);
    if (name != "kind" && !value.IsUndefined()) out.numbers.emplace_back(name, integer(value));
  });
  return out;
}

TensorTable tensor_table(const Napi::Object& table) {
  TensorTable out;
  each(table.Get("files"), [&](const Napi::Value& file) { out.files.push_back(file.As<Napi::String>().Utf8Value()); });
  each(table.Get("tensors"), [&](const Napi::Value& value) {
    const auto o = value.As<Napi::Object>();
    TensorEntry entry{text(o, "name"),    text(o, "dtype"),    {},
                      integer(o, "file"), integer(o, "begin"), integer(o, "end")};
    each(o.Get("shape"), [&](const Napi::Value& size) { entry.shape.push_back(integer(size)); });
    out.tensors.push_back(std::move(entry));
  });
  return out;
}

Napi::Float32Array float_array(Napi::Env env, const at::Tensor& tensor) {
  const at::Tensor plain = tensor.cpu().to(at::kFloat).contiguous();
  auto array = Napi::Float32Array::New(env, static_cast<size_t>(plain.numel()));
  std::copy_n(plain.const_data_ptr<float>(), plain.numel(), array.Data());
  return array;
}

at::Tensor float_tensor(const Napi::Value& value, std::vector<int64_t> shape) {
  const auto array = value.As<Napi::Float32Array>();
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  if (count != static_cast<int64_t>(array.ElementLength())) {
    throw Error(
        "OPTION_INVALID", "array has the wrong length",
        {{"option", std::string("data")},
         {"reason", "expected " + std::to_string(count) + " values, got " + std::to_string(array.ElementLength())}});
  }
  at::Tensor tensor = at::empty(shape, at::kFloat);
  std::copy_n(array.Data(), count, tensor.mutable_data_ptr<float>());
  return tensor;
}

}  // namespace c2c
