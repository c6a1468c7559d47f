// A flag that JavaScript raises and jobs look at between layers and between tokens.
#pragma once
#include <atomic>
#include <memory>

#include "core/error.h"

namespace c2c {

using CancelFlag = std::shared_ptr<std::atomic<bool>>;

inline void check(const CancelFlag& cancel) {
  if (cancel && cancel->load(std::memory_order_relaxed)) throw Cancelled();
}

}  // namespace c2c
