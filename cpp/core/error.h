// Errors that cross to JavaScript as C2CError: a stable code, a message, and details by name (see lib/errors.ts).
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace c2c {

using Detail = std::variant<std::string, double, std::vector<int64_t>, std::vector<std::string>>;
using Details = std::vector<std::pair<std::string, Detail>>;

struct Error : std::runtime_error {
  std::string code;
  Details details;
  Error(std::string code_, const std::string& message, Details details_ = {})
      : std::runtime_error(message), code(std::move(code_)), details(std::move(details_)) {}
};

// Thrown by jobs that saw their cancel flag; TypeScript turns it into signal.reason.
struct Cancelled : std::runtime_error {
  Cancelled() : std::runtime_error("cancelled") {}
};

[[noreturn]] inline void shape_mismatch(const std::string& tensor, std::vector<int64_t> expected,
                                        std::vector<int64_t> actual) {
  throw Error("SHAPE_MISMATCH", "tensor " + tensor + " does not have the expected shape",
              {{"tensor", tensor}, {"expected", std::move(expected)}, {"actual", std::move(actual)}});
}

[[noreturn]] inline void option_invalid(const std::string& option, const std::string& reason) {
  throw Error("OPTION_INVALID", option + ": " + reason, {{"option", option}, {"reason", reason}});
}

}  // namespace c2c
