// cuda_fuser_test without a GPU: its kernels and what launches them, on the emulator.
#include "cuda_fuser_test.cpp"
