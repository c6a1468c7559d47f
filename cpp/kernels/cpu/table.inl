// One instruction set's kernels. Included by the file of each set, which defines C2C_ISA and is compiled with its flags.
#include <type_traits>

#include "kernels/cpu/simd.h"
// The order matters: each part uses those before it.
#include "kernels/cpu/product.inl"
#include "kernels/cpu/rows.inl"
#include "kernels/cpu/pack.inl"
#include "kernels/cpu/attention.inl"

#define C2C_NAME_(x) #x
#define C2C_NAME(x) C2C_NAME_(x)

namespace c2c {

extern const Kernels C2C_TABLE;
const Kernels C2C_TABLE{
    .name = C2C_NAME(C2C_ISA),
    .product = C2C_ISA::product,
    .pack = C2C_ISA::pack,
    .norm = C2C_ISA::norm,
    .turn = C2C_ISA::turn,
    .widen = C2C_ISA::widen,
    .narrow = C2C_ISA::narrow,
    .attend = C2C_ISA::attend,
    .attend_tile = C2C_ISA::attend_tile,
    .pack_keys = C2C_ISA::pack_keys,
    .pack_values = C2C_ISA::pack_values,
    .gated = C2C_ISA::gated,
};

}  // namespace c2c
