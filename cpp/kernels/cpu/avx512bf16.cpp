#define C2C_ISA avx512bf16
#define C2C_TABLE kernels_avx512bf16
#include "kernels/cpu/table.inl"
