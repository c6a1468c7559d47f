#include "kernels/kernels.h"

#include <array>
#include <cstdlib>
#include <string_view>

namespace c2c {

extern const Kernels kernels_baseline;
#if defined(__x86_64__)
extern const Kernels kernels_avx2, kernels_avx512, kernels_avx512bf16, kernels_avx512intel;
#endif

namespace {

struct Found {
  std::array<const Kernels*, 5> tables{};
  size_t count = 0;
  Found() {
    tables[count++] = &kernels_baseline;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) tables[count++] = &kernels_avx2;
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (wide) tables[count++] = &kernels_avx512;
    if (wide && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni")) {
      tables[count++] = &kernels_avx512bf16;
      if (__builtin_cpu_is("intel")) tables[count++] = &kernels_avx512intel;
    }
#endif
  }
};

const Found& found() {
  static const Found all;
  return all;
}

const Kernels& choose() {
  const Found& all = found();
  if (const char* wanted = std::getenv("C2C_KERNELS")) {
    for (size_t i = 0; i < all.count; ++i)
      if (std::string_view(all.tables[i]->name) == wanted) return *all.tables[i];
  }
  return *all.tables[all.count - 1];
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

KernelList all_kernels() { return {found().tables.data(), found().count}; }

}  // namespace c2c
