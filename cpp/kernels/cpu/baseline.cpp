#define C2C_ISA baseline
#define C2C_TABLE kernels_baseline
#include "kernels/cpu/table.inl"
