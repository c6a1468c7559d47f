#define C2C_ISA avx2
#define C2C_TABLE kernels_avx2
#include "kernels/cpu/table.inl"
