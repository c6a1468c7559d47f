#include "napi/bridge.h"

#include <algorithm>

#include "core/memory.h"
#include "napi/arguments.h"

namespace c2c {

namespace {

struct Settlement {
  Napi::Promise::Deferred deferred;
  Reply reply;
  Bridge* bridge;
  int* pending;
};

Napi::Value to_js(Napi::Env env, const Detail& detail) {
  if (const auto* text = std::get_if<std::string>(&detail)) return Napi::String::New(env, *text);
  if (const auto* number = std::get_if<double>(&detail)) return Napi::Number::New(env, *number);
  auto array = Napi::Array::New(env);
  uint32_t i = 0;
  if (const auto* numbers = std::get_if<std::vector<int64_t>>(&detail)) {
    for (const int64_t n : *numbers) array.Set(i++, Napi::Number::New(env, static_cast<double>(n)));
  } else {
    for (const auto& text : std::get<std::vector<std::string>>(detail)) array.Set(i++, Napi::String::New(env, text));
  }
  return array;
}

Reply failure(Error error) {
  return [error = std::move(error)](Napi::Env env) -> Napi::Value { throw_js(env, error); };
}

void call_js(napi_env raw, napi_value, void* context, void* data) {
  std::unique_ptr<Settlement> settlement(static_cast<Settlement*>(data));
  if (raw == nullptr) return;
  const Napi::Env env(raw);
  const Napi::HandleScope scope(env);
  try {
    settlement->deferred.Resolve(settlement->reply(env));
  } catch (const Napi::Error& error) {
    settlement->deferred.Reject(error.Value());
  }
  if (--*settlement->pending == 0)
    napi_unref_threadsafe_function(raw, *static_cast<napi_threadsafe_function*>(context));
}

class FunctionJob : public Job {
 public:
  FunctionJob(std::shared_ptr<Bridge> bridge, Napi::Promise::Deferred deferred, std::function<Reply()> work)
      : bridge_(std::move(bridge)), deferred_(deferred), work_(std::move(work)) {}
  void run() override {
    Reply reply = guard([this] {
      check(cancel);
      return work_();
    });
    work_ = nullptr;  // leases end before the promise settles
    bridge_->settle(deferred_, std::move(reply));
  }
  void drop() override {
    work_ = nullptr;
    bridge_->settle(deferred_, failure(Error("CANCELLED", "cancelled")));
  }

 private:
  std::shared_ptr<Bridge> bridge_;
  Napi::Promise::Deferred deferred_;
  std::function<Reply()> work_;
};

}  // namespace

void throw_js(Napi::Env env, const Error& error) {
  Napi::Error js = Napi::Error::New(env, error.what());
  js.Set("code", Napi::String::New(env, error.code));
  auto details = Napi::Object::New(env);
  for (const auto& [name, detail] : error.details) {
    const auto* text = std::get_if<std::string>(&detail);
    details.Set(name, name == "device" && text != nullptr ? device_object(env, at::Device(*text)) : to_js(env, detail));
  }
  js.Set("details", details);
  throw js;
}

Reply guard(const std::function<Reply()>& work) {
  try {
    return work();
  } catch (const Error& error) {
    return failure(error);
  } catch (const Cancelled&) {
    return failure(Error("CANCELLED", "cancelled"));
  } catch (const std::exception& error) {
    if (auto typed = out_of_memory(error)) return failure(std::move(*typed));
    return [message = message_of(error)](Napi::Env env) -> Napi::Value { throw Napi::Error::New(env, message); };
  }
}

void throw_other(Napi::Env env, const std::exception& error) {
  if (const auto typed = out_of_memory(error)) throw_js(env, *typed);
  throw Napi::Error::New(env, message_of(error));
}

std::shared_ptr<Bridge> Bridge::open(Napi::Env env) {
  auto bridge = std::make_shared<Bridge>();
  const auto name = Napi::String::New(env, "cache-to-cache");
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, &bridge->function_, call_js,
                                      &bridge->function_) != napi_ok) {
    throw Napi::Error::New(env);
  }
  napi_unref_threadsafe_function(env, bridge->function_);
  // The hook owns one share: the function's context stays valid until the environment is gone.
  auto* share = new std::shared_ptr<Bridge>(bridge);
  napi_add_env_cleanup_hook(
      env, [](void* data) { (*static_cast<std::shared_ptr<Bridge>*>(data))->close(); }, share);
  return bridge;
}

void Bridge::close() {
  for (const auto& weak : flags_) {
    if (const auto flag = weak.lock()) flag->store(true);
  }
  const std::lock_guard lock(mutex_);
  if (function_ != nullptr) napi_release_threadsafe_function(std::exchange(function_, nullptr), napi_tsfn_abort);
}

void Bridge::begin(Napi::Env env, const CancelFlag& cancel) {
  if (pending_++ == 0) napi_ref_threadsafe_function(env, function_);
  std::erase_if(flags_, [](const auto& weak) { return weak.expired(); });
  // Jobs may share a flag.
  const auto same = [&](const auto& weak) { return !weak.owner_before(cancel) && !cancel.owner_before(weak); };
  if (std::none_of(flags_.begin(), flags_.end(), same)) flags_.emplace_back(cancel);
}

void Bridge::settle(Napi::Promise::Deferred deferred, Reply reply) {
  const std::lock_guard lock(mutex_);
  if (function_ == nullptr) return;
  auto settlement = std::make_unique<Settlement>(Settlement{deferred, std::move(reply), this, &pending_});
  if (napi_call_threadsafe_function(function_, settlement.get(), napi_tsfn_nonblocking) == napi_ok)
    settlement.release();
}

Napi::Value async(Napi::Env env, CancelFlag cancel, std::function<Reply()> work) {
  auto deferred = Napi::Promise::Deferred::New(env);
  const auto to = bridge(env);
  auto job = std::make_shared<FunctionJob>(to, deferred, std::move(work));
  job->cancel = cancel ? std::move(cancel) : std::make_shared<std::atomic<bool>>(false);
  to->begin(env, job->cancel);
  Executor::instance().submit(std::move(job));
  return deferred.Promise();
}

}  // namespace c2c
