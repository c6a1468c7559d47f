// Jobs to promises. Each environment has one bridge: a thread-safe function that carries results to its JavaScript
// thread, closed under a mutex when the environment ends, so that no job ever calls into a stopping environment.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "core/cancel.h"
#include "engine/executor.h"
#include "napi/setup.h"

namespace c2c {

// Builds a job's result on the JavaScript thread.
using Reply = std::function<Napi::Value(Napi::Env)>;

class Bridge {
 public:
  static std::shared_ptr<Bridge> open(Napi::Env env);
  // JavaScript thread: a job of this environment begins; the process stays alive until it is settled.
  void begin(Napi::Env env, const CancelFlag& cancel);
  // Any thread: settles the promise on the JavaScript thread; nothing happens when the environment has ended.
  void settle(Napi::Promise::Deferred deferred, Reply reply);

 private:
  void close();

  // Against the end: `function_` changes under it, on the JavaScript thread. What follows is that thread's alone.
  std::mutex mutex_;
  napi_threadsafe_function function_ = nullptr;
  int pending_ = 0;
  std::vector<std::weak_ptr<std::atomic<bool>>> flags_;
};

// The bridge of the environment (kept in the addon's instance data).
std::shared_ptr<Bridge> bridge(Napi::Env env);

// Calls `work` and turns what it throws into a reply that throws the same to JavaScript.
Reply guard(const std::function<Reply()>& work);

// Throws `code`, message and details as a JavaScript error.
[[noreturn]] void throw_js(Napi::Env env, const Error& error);

// Throws what libtorch or the standard library threw: OUT_OF_MEMORY where memory ran out, else a plain JavaScript
// error.
[[noreturn]] void throw_other(Napi::Env env, const std::exception& error);

// Runs `f` on the JavaScript thread and throws its C++ errors as JavaScript errors.
template <class F>
auto sync(Napi::Env env, F f) -> decltype(f()) {
  try {
    return f();
  } catch (const Napi::Error&) {
    throw;
  } catch (const Error& error) {
    throw_js(env, error);
  } catch (const std::exception& error) {
    throw_other(env, error);
  }
}

// Runs `work` on the executor; the promise resolves with what its reply builds.
Napi::Value async(Napi::Env env, CancelFlag cancel, std::function<Reply()> work);

}  // namespace c2c
