// cuda_test without a GPU: decoders' kernels and what launches them, on the emulator.
#include "cuda_test.cpp"
