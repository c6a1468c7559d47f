// The emulator's calls do not fail.
#pragma once
#include <cuda_runtime.h>

#define C10_CUDA_CHECK(call) static_cast<void>(call)
