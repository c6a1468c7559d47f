// Random numbers that are functions of what they are for: a stream for each key, so that a run's draws need no state
// but its seed and its step.
#pragma once
#include <ATen/core/Generator.h>

#include <cstdint>
#include <initializer_list>
#include <string>

namespace c2c {

// One 64-bit number out of several (SplitMix64's finaliser, Steele et al. 2014, over a running sum).
uint64_t mix(std::initializer_list<uint64_t> parts);
// A name as part of a key (FNV-1a).
uint64_t text_key(const std::string& text);
// A fresh stream that begins where the key says.
at::Generator random_stream(std::initializer_list<uint64_t> key);

}  // namespace c2c
