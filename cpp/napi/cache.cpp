#include "cache/edit.h"
#include "napi/arguments.h"

namespace c2c {

namespace {

// Checks a row range of a cache and a layer of it.
void check_rows(const KvCache& cache, int64_t layer, int64_t part, int64_t start, int64_t end) {
  if (layer < 0 || layer >= cache.layout().layers) option_invalid("layer", "no such layer");
  if (part != 0 && part != 1) option_invalid("part", "neither key nor value");
  if (start < 0 || end < start || end > cache.length()) option_invalid("range", "outside the cache");
}

}  // namespace

Napi::Function CacheHandle::define(Napi::Env env) {
  return DefineClass(
      env, "NativeCache",
      {InstanceAccessor<&CacheHandle::length>("length"), InstanceAccessor<&CacheHandle::capacity>("capacity"),
       InstanceAccessor<&CacheHandle::bytes>("bytes"), InstanceAccessor<&CacheHandle::most>("most"),
       InstanceMethod("tokens", &CacheHandle::tokens), InstanceMethod("positions", &CacheHandle::positions),
       InstanceMethod("fork", &CacheHandle::fork), InstanceMethod("truncate", &CacheHandle::truncate),
       InstanceMethod("read", &CacheHandle::read), InstanceMethod("write", &CacheHandle::write),
       InstanceMethod("append", &CacheHandle::append), InstanceMethod("slice", &CacheHandle::slice),
       InstanceMethod("erase", &CacheHandle::erase), InstanceMethod("shift", &CacheHandle::shift),
       InstanceMethod("quantize", &CacheHandle::quantize), InstanceMethod("plan", &CacheHandle::plan),
       InstanceMethod("save", &CacheHandle::save), InstanceMethod("dispose", &CacheHandle::dispose)});
}

Napi::Object CacheHandle::wrap(Napi::Env env, std::shared_ptr<KvCache> cache) {
  const int64_t bytes = cache->bytes();
  return make(env, std::make_shared<CacheBox>(std::move(cache)), bytes);
}

Napi::Value CacheHandle::length(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] { return Napi::Number::New(info.Env(), static_cast<double>(get()->length.load())); });
}
Napi::Value CacheHandle::capacity(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] { return Napi::Number::New(info.Env(), static_cast<double>(get()->capacity.load())); });
}
Napi::Value CacheHandle::most(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&]() -> Napi::Value {
    const KvCache& cache = *get()->cache;
    if (!cache.policy()) return info.Env().Null();
    return Napi::Number::New(info.Env(), static_cast<double>(cache.policy()->most(get()->capacity.load())));
  });
}
Napi::Value CacheHandle::bytes(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] {
    // A shared block may count here since another cache was disposed; a writer publishes when it is done.
    if (get()->users.load() >= 0) {
      const Lease lease(get(), false, "bytes");
      get()->bytes = lease.cache().bytes();
    }
    return Napi::Number::New(info.Env(), static_cast<double>(get()->bytes.load()));
  });
}

namespace {
Napi::Value id_array(Napi::Env env, const std::vector<uint32_t>& values) {
  auto array = Napi::Uint32Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}
}  // namespace

Napi::Value CacheHandle::tokens(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] { return id_array(info.Env(), Lease(get(), false, "tokens").cache().tokens()); });
}
Napi::Value CacheHandle::positions(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] { return id_array(info.Env(), Lease(get(), false, "positions").cache().positions()); });
}

Napi::Value CacheHandle::fork(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] { return wrap(info.Env(), Lease(get(), false, "fork").cache().fork()); });
}

void CacheHandle::truncate(const Napi::CallbackInfo& info) {
  sync(info.Env(), [&] { Lease(get(), true, "truncate").cache().truncate(integer(info[0])); });
}

Napi::Value CacheHandle::read(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] {
    const Lease lease(get(), false, "read");
    const int64_t layer = integer(info[0]), part = integer(info[1]), start = integer(info[2]), end = integer(info[3]);
    check_rows(lease.cache(), layer, part, start, end);
    return float_array(info.Env(), lease.cache().rows(layer, part, start, end));
  });
}

void CacheHandle::write(const Napi::CallbackInfo& info) {
  sync(info.Env(), [&] {
    const Lease lease(get(), true, "write");
    KvCache& cache = lease.cache();
    const int64_t layer = integer(info[0]), part = integer(info[1]), start = integer(info[2]);
    const int64_t row = cache.layout().kv_heads * cache.layout().head_dim;
    const auto values = static_cast<int64_t>(info[3].As<Napi::Float32Array>().ElementLength());
    if (values % row != 0) option_invalid("data", "not a whole number of rows of " + std::to_string(row) + " values");
    check_rows(cache, layer, part, start, start + values / row);
    cache.own(start, start + values / row);
    cache.put(layer, part, start,
              float_tensor(info[3], {values / row, cache.layout().kv_heads, cache.layout().head_dim}));
  });
}

void CacheHandle::append(const Napi::CallbackInfo& info) {
  sync(info.Env(), [&] {
    const auto other = unwrap<CacheHandle>(info[0]);
    const Lease to(get(), true, "append");
    const Lease from(other, false, "append");
    const int64_t start = integer(info[1]), end = integer(info[2]);
    if (!(to.cache().layout() == from.cache().layout())) option_invalid("from", "a cache of another shape");
    check_rows(from.cache(), 0, 0, start, end);
    if (info[3].As<Napi::Boolean>().Value()) {
      append_behind(to.cache(), from.cache(), start, end);
    } else {
      to.cache().append(from.cache(), start, end);
    }
  });
}

Napi::Value CacheHandle::slice(const Napi::CallbackInfo& info) {
  return sync(info.Env(), [&] {
    const Lease lease(get(), false, "slice");
    check_rows(lease.cache(), 0, 0, integer(info[0]), integer(info[1]));
    return wrap(info.Env(), lease.cache().slice(integer(info[0]), integer(info[1])));
  });
}

void CacheHandle::erase(const Napi::CallbackInfo& info) {
  sync(info.Env(), [&] { c2c::erase(Lease(get(), true, "erase").cache(), integer(info[0]), integer(info[1])); });
}

void CacheHandle::shift(const Napi::CallbackInfo& info) {
  sync(info.Env(), [&] { c2c::shift(Lease(get(), true, "shift").cache(), integer(info[0])); });
}

}  // namespace c2c
