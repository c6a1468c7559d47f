// Memory that ran out, as the standard library and libtorch say it.
#pragma once
#include <exception>
#include <optional>
#include <string>

#include "core/error.h"

namespace c2c {

// What an exception says, without libtorch's backtrace.
std::string message_of(const std::exception& error);

// OUT_OF_MEMORY if that is what the exception means, with `requested` bytes (0 where it does not say) and `device`
// ("cpu", "cuda:0"). libtorch says all of it in words alone.
std::optional<Error> out_of_memory(const std::exception& error);

}  // namespace c2c
