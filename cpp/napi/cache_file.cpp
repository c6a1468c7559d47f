#include "cache/file.h"

#include "cache/digest.h"
#include "cache/quantized.h"
#include "core/system.h"
#include "napi/arguments.h"

namespace c2c {

namespace {

const char* form_name(Form form) { return form == Form::kPlain ? "plain" : form == Form::kInt8 ? "int8" : "int4"; }

Form form_of(const std::string& name) {
  if (name == "int8") return Form::kInt8;
  if (name == "int4") return Form::kInt4;
  return Form::kPlain;
}

FileCache file_cache(const Napi::Object& o) {
  FileCache file;
  file.rows = integer(o, "rows");
  file.tokens = integer(o, "tokens");
  file.positions = integer(o, "positions");
  each(o.Get("parts"), [&](const Napi::Value& value) {
    const auto p = value.As<Napi::Object>();
    FileCache::Part part;
    part.form = form_of(text(p, "form"));
    part.rows = integer(p, "rows");
    part.skip = integer(p, "skip");
    const auto begins = p.Get("begins").As<Napi::Float64Array>();
    if (begins.ElementLength() != (part.form == Form::kPlain ? 1 : 4)) file_invalid("", "tensors are missing");
    if (part.form == Form::kPlain) {
      part.plain = static_cast<int64_t>(begins[0]);
    } else {
      part.keys = static_cast<int64_t>(begins[0]);
      part.key_scales = static_cast<int64_t>(begins[1]);
      part.values = static_cast<int64_t>(begins[2]);
      part.value_scales = static_cast<int64_t>(begins[3]);
    }
    file.parts.push_back(part);
  });
  return file;
}

}  // namespace

Napi::Value CacheHandle::quantize(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return sync(env, [&] {
    const std::shared_ptr<KvCache> rows = Lease(get(), false, "quantize").cache().fork();
    const Form form = form_of(info[0].As<Napi::String>().Utf8Value());
    const CancelFlag cancel = cancel_flag(info[1]);
    return async(env, cancel, [=]() -> Reply {
      QuantizeReport report;
      const auto made = quantized(*rows, form, report, cancel);
      return [made, report](Napi::Env e) -> Napi::Value {
        const auto error = [&](const RowError& lost) {
          auto object = Napi::Object::New(e);
          object.Set("relative", Napi::Number::New(e, lost.relative()));
          object.Set("largest", Napi::Number::New(e, lost.largest));
          return object;
        };
        auto result = Napi::Object::New(e);
        result.Set("cache", CacheHandle::wrap(e, made));
        result.Set("bytes", Napi::Number::New(e, static_cast<double>(report.bytes)));
        result.Set("plain", Napi::Number::New(e, static_cast<double>(report.plain)));
        result.Set("keyError", error(report.key));
        result.Set("valueError", error(report.value));
        return result;
      };
    });
  });
}

Napi::Value CacheHandle::plan(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return sync(env, [&] {
    const Lease lease(get(), false, "save");
    const FilePlan plan = plan_file(lease.cache());
    auto parts = Napi::Array::New(env), tensors = Napi::Array::New(env);
    for (const FilePart& p : plan.parts) {
      auto part = Napi::Object::New(env);
      part.Set("form", Napi::String::New(env, form_name(p.form)));
      part.Set("rows", Napi::Number::New(env, static_cast<double>(p.rows)));
      part.Set("skip", Napi::Number::New(env, static_cast<double>(p.skip)));
      parts.Set(parts.Length(), part);
    }
    for (const FileTensor& t : plan.tensors) {
      auto tensor = Napi::Object::New(env);
      tensor.Set("name", Napi::String::New(env, t.name));
      tensor.Set("dtype", Napi::String::New(env, t.dtype));
      auto shape = Napi::Array::New(env);
      for (const int64_t size : t.shape) shape.Set(shape.Length(), Napi::Number::New(env, static_cast<double>(size)));
      tensor.Set("shape", shape);
      tensors.Set(tensors.Length(), tensor);
    }
    auto result = Napi::Object::New(env);
    result.Set("parts", parts);
    result.Set("tensors", tensors);
    return result;
  });
}

Napi::Value CacheHandle::save(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return sync(env, [&] {
    const auto lease = std::make_shared<Lease>(get(), false, "save");
    const auto file = static_cast<int>(integer(info[0]));
    const std::string path = info[1].As<Napi::String>().Utf8Value();
    const auto bytes = info[2].As<Napi::Uint8Array>();
    const auto* first = reinterpret_cast<const std::byte*>(bytes.Data());
    const std::vector<std::byte> header(first, first + bytes.ElementLength());
    const auto checksum_at = static_cast<size_t>(integer(info[3]));
    const CancelFlag cancel = cancel_flag(info[4]);
    return async(env, cancel, [=]() -> Reply {
      const std::string checksum = write_file(plan_file(lease->cache()), file, path, header, checksum_at, cancel);
      return [checksum](Napi::Env e) -> Napi::Value { return Napi::String::New(e, checksum); };
    });
  });
}

Napi::Value ModelHandle::load_cache(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return sync(env, [&] {
    const auto model = get();
    const auto map = std::make_shared<Mapping>(static_cast<int>(integer(info[0])), info[1].As<Napi::String>());
    const std::string path = info[1].As<Napi::String>().Utf8Value();
    const auto o = info[2].As<Napi::Object>();
    const auto cache = map_cache(map, path, file_cache(o), model->layout(), model->spec().vocab, model->ropes());
    if (o.Get("capacity").IsNumber()) {
      const int64_t capacity = integer(o, "capacity");
      if (capacity < std::max<int64_t>(1, cache->length())) file_invalid(path, "more rows than its capacity");
      cache->fix(capacity);
      if (o.Get("policy").IsObject())
        cache->set_policy(make_policy(policy_options(o.Get("policy").As<Napi::Object>()), capacity));
    }
    return CacheHandle::wrap(env, cache);
  });
}

Napi::Value check_cache_file(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return sync(env, [&] {
    const auto map = std::make_shared<Mapping>(static_cast<int>(integer(info[0])), info[1].As<Napi::String>());
    const auto at = static_cast<size_t>(integer(info[2]));
    const std::string checksum = info[3].As<Napi::String>().Utf8Value();
    if (checksum.size() != kDigestDigits) option_invalid("checksum", "not a checksum");
    const CancelFlag cancel = cancel_flag(info[4]);
    return async(env, cancel, [=]() -> Reply {
      const bool ok = check_file(*map, at, checksum, cancel);
      return [ok](Napi::Env e) -> Napi::Value { return Napi::Boolean::New(e, ok); };
    });
  });
}

}  // namespace c2c
