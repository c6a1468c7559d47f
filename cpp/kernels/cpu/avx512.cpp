#define C2C_ISA avx512
#define C2C_TABLE kernels_avx512
#include "kernels/cpu/table.inl"
