// One thread for every native job of the process: a fixed order, a bounded number of threads, something to join at
// exit.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/cancel.h"

namespace c2c {

// A job runs once on the executor, or is dropped; `done` is called exactly once either way, on the executor's thread.
struct Job {
  virtual ~Job() = default;
  virtual void run() = 0;
  // Called instead of run() when the executor is draining.
  virtual void drop() = 0;
  // Jobs with the same non-null key that wait together run as one.
  virtual const void* batch_key() const { return nullptr; }
  // Takes the work of jobs with the same key; false where this one may not join.
  virtual bool absorb(std::shared_ptr<Job>&) { return false; }
  // Raises the cancel flags of all that it took; from any thread, while no job can join.
  virtual void stop() {
    if (cancel) cancel->store(true);
  }
  CancelFlag cancel;
};

class Executor {
 public:
  static Executor& instance();
  void submit(std::shared_ptr<Job> job);
  // All before any of them starts, so that those which run as one do.
  void submit(std::vector<std::shared_ptr<Job>> jobs);
  // For process exit: raises every cancel flag, drops what waits and joins the thread. Later submits are dropped.
  void drain();
  void set_threads(int threads);
  // What steps of decode computed in this process so far, without their way to the executor and back.
  std::chrono::nanoseconds stepped() const { return std::chrono::nanoseconds(stepped_.load()); }
  void count_step(std::chrono::nanoseconds spent) { stepped_ += spent.count(); }

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> queue_;
  std::shared_ptr<Job> current_;
  std::thread thread_;
  bool stopping_ = false;
  int threads_ = 0;
  std::atomic<int64_t> stepped_{0};
};

}  // namespace c2c
