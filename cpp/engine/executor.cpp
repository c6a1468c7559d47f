#include "engine/executor.h"

#include <ATen/Parallel.h>

#include <algorithm>

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
  waiting_.store(queue_.size());
  // Woken with the mutex held, the thread would only wait for that.
  lock.unlock();
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

void Executor::linger(std::unique_lock<std::mutex>& lock, size_t expected) {
  // Longer than JavaScript takes for a token, far shorter than a large model's step. Yielding instead would cost a time
  // slice wherever others want this core.
  constexpr std::chrono::microseconds kMost{80};
  lock.unlock();
  auto start = std::chrono::steady_clock::now();
  for (size_t seen = waiting_;;) {
    const size_t waiting = waiting_;
    // A thread that found the mutex taken would sleep for it.
    if ((stopping_ || waiting >= expected) && lock.try_lock()) return;
    const auto now = std::chrono::steady_clock::now();
    if (waiting != seen) start = now;
    seen = waiting;
    if (now - start > kMost) break;
  }
  lock.lock();
}

void Executor::loop() {
  int applied = 0;
  const unsigned cores = std::thread::hardware_concurrency();
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
    waiting_.store(queue_.size());
    // The setting belongs to the thread that runs ops.
    if (threads_ != 0 && threads_ != applied) at::set_num_threads(applied = threads_);
    auto job = current_;
    lock.unlock();
    if (drop) {
      job->drop();
    } else {
      job->run();
    }
    const size_t expected = drop ? 0 : job->expected();
    const void* key = job->batch_key();
    job.reset();
    lock.lock();
    current_.reset();
    // For a single one the thread sleeps: looking out takes a core, which costs more than waking where all are busy.
    const auto same = [&](const auto& other) { return other->batch_key() == key; };
    if (expected > 1 && cores > 1 && std::all_of(queue_.begin(), queue_.end(), same)) linger(lock, expected);
  }
}

}  // namespace c2c
