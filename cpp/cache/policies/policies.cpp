// The policies there are: a name in this list, and a file with its make_NAME.
#include "cache/policy.h"
#include "core/error.h"

#define C2C_POLICIES(X) X(sinks)

namespace c2c {

#define C2C_DECLARE(name) std::shared_ptr<const Policy> make_##name(const PolicyOptions& options, int64_t capacity);
C2C_POLICIES(C2C_DECLARE)

std::shared_ptr<const Policy> make_policy(const PolicyOptions& options, int64_t capacity) {
#define C2C_TRY(name) \
  if (options.kind == #name) return make_##name(options, capacity);
  C2C_POLICIES(C2C_TRY)
  option_invalid("policy.kind", "no policy is called " + options.kind);
}

}  // namespace c2c
