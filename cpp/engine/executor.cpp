#include "engine/executor.h"

#include <ATen/Parallel.h>

namespace c2c {

Executor& Executor::instance() {
  // Never destroyed: libtorch's statics may be gone when destructors run.
  static Executor* executor = new Executor;
  return *executor;
}

void Executor::submit(std::shared_ptr<Job> job) { submit(std::vector<std::shared_ptr<Job>>{std::move(job)}); }

void Executor::submit(std::vector<std::shared_ptr<Job>> jobs) {
  std::unique_lock lock(mutex_);
  if (stopping_) {
    lock.unlock();
    for (const auto& job : jobs) job->drop();
    return;
  }
  if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
  for (auto& job : jobs) queue_.push_back(std::move(job));
  wake_.notify_one();
}

void Executor::drain() {
  std::thread thread;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    if (current_) current_->stop();
    for (const auto& job : queue_) job->stop();
    wake_.notify_one();
    thread = std::move(thread_);
  }
  if (thread.joinable()) thread.join();
}

void Executor::set_threads(int threads) {
  const std::lock_guard lock(mutex_);
  threads_ = threads;
}

void Executor::loop() {
  int applied = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    current_ = std::move(queue_.front());
    queue_.pop_front();
    const bool drop = stopping_;
    if (!drop && current_->batch_key() != nullptr) {
      for (auto next = queue_.begin(); next != queue_.end();) {
        const bool joins = (*next)->batch_key() == current_->batch_key() && current_->absorb(*next);
        next = joins ? queue_.erase(next) : std::next(next);
      }
    }
    // The setting belongs to the thread that runs ops.
    if (threads_ != 0 && threads_ != applied) at::set_num_threads(applied = threads_);
    auto job = current_;
    lock.unlock();
    if (drop) {
      job->drop();
    } else {
      job->run();
    }
    job.reset();
    lock.lock();
    current_.reset();
  }
}

}  // namespace c2c
