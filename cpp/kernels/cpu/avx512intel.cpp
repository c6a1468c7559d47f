// Intel's units multiply pairs of bf16 at half the rate at which they multiply floats: good for one row, which waits
// for memory, but many rows are multiplied as floats.
#define C2C_ISA avx512intel
#define C2C_TABLE kernels_avx512intel
#define C2C_FLOAT_ROWS
#include "kernels/cpu/table.inl"
