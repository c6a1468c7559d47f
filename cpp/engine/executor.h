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
  // After run(): how many jobs with the same key are likely to wait as soon as its results have been taken.
  virtual size_t expected() const { return 0; }
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
  // How many jobs wait now.
  size_t waiting() const { return waiting_; }
  // What steps of decode computed in this process so far, without their way to the executor and back.
  std::chrono::nanoseconds stepped() const { return std::chrono::nanoseconds(stepped_.load()); }
  void count_step(std::chrono::nanoseconds spent) { stepped_ += spent.count(); }

 private:
  void loop();
  // Looks out for jobs until `expected` wait or none has come for a moment, so that those of a batch run together
  // again. Gives `lock` up meanwhile.
  void linger(std::unique_lock<std::mutex>& lock, size_t expected);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> queue_;
  std::shared_ptr<Job> current_;
  std::thread thread_;
  // Written under the mutex; read without it by linger().
  std::atomic<bool> stopping_{false};
  std::atomic<size_t> waiting_{0};
  int threads_ = 0;
  std::atomic<int64_t> stepped_{0};
};

}  // namespace c2c
