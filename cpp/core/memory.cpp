#include "core/memory.h"

#include <c10/util/Exception.h>

#include <cmath>
#include <cstdlib>
#include <new>

namespace c2c {

namespace {

Error out_of_memory(const std::string& message, double requested, const std::string& device) {
  return Error("OUT_OF_MEMORY", message, {{"requested", requested}, {"device", device}});
}

// The number behind `before`, with what follows it; 0 where it is not there.
double number_behind(const std::string& text, const std::string& before, std::string& rest) {
  const size_t at = text.find(before);
  if (at == std::string::npos) return 0;
  char* end = nullptr;
  const double value = std::strtod(text.c_str() + at + before.size(), &end);
  rest = end;
  return value;
}

// "2.00 GiB" is rounded to hundredths of its unit.
double unit_of(const std::string& text) {
  if (text.starts_with(" KiB")) return 0x1p10;
  if (text.starts_with(" MiB")) return 0x1p20;
  if (text.starts_with(" GiB")) return 0x1p30;
  return 1;
}

}  // namespace

std::string message_of(const std::exception& error) {
  const auto* torch = dynamic_cast<const c10::Error*>(&error);
  return torch != nullptr ? torch->what_without_backtrace() : error.what();
}

std::optional<Error> out_of_memory(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return out_of_memory("out of memory", 0, "cpu");
  const std::string message = message_of(error);
  std::string rest;
  if (message.find("CUDA out of memory") != std::string::npos) {
    const double amount = number_behind(message, "Tried to allocate ", rest);
    const double requested = std::round(amount * unit_of(rest));
    const double index = number_behind(message, "GPU ", rest);
    return out_of_memory(message, requested, "cuda:" + std::to_string(static_cast<int>(index)));
  }
  if (message.find("allocate memory") == std::string::npos) return std::nullopt;
  return out_of_memory(message, number_behind(message, "you tried to allocate ", rest), "cpu");
}

}  // namespace c2c
