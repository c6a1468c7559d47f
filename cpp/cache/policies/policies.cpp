// The policies there are: one line each.
#include "cache/policies/sinks.h"
#include "core/error.h"

namespace c2c {

namespace {

using Make = std::shared_ptr<const Policy> (*)(const PolicyOptions&, int64_t capacity);

const std::pair<const char*, Make> kPolicies[] = {
    {"sinks", make_sinks},
};

}  // namespace

std::shared_ptr<const Policy> make_policy(const PolicyOptions& options, int64_t capacity) {
  for (const auto& [kind, make] : kPolicies)
    if (options.kind == kind) return make(options, capacity);
  option_invalid("policy.kind", "no policy is called " + options.kind);
}

}  // namespace c2c
