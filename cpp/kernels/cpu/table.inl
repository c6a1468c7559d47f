// One instruction set's kernels. Included by the file of each set, which defines C2C_ISA and is compiled with its
// flags.
#include <type_traits>

#include "kernels/cpu/simd.h"
// After what it uses.
#include "kernels/cpu/kernels.inl"

#define C2C_NAME_(x) #x
#define C2C_NAME(x) C2C_NAME_(x)

namespace c2c {

extern const Kernels C2C_TABLE;
const Kernels C2C_TABLE{
    .name = C2C_NAME(C2C_ISA),
#define KERNEL(name, ...) .name = C2C_ISA::name,
#include "kernels/cpu/kernels.inl"
#undef KERNEL
};

}  // namespace c2c
