#include "train/random.h"

#include <ATen/CPUGeneratorImpl.h>

namespace c2c {

uint64_t mix(std::initializer_list<uint64_t> parts) {
  uint64_t state = 0;
  for (const uint64_t part : parts) {
    state = (state ^ part) + 0x9e3779b97f4a7c15ULL;
    state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9ULL;
    state = (state ^ (state >> 27)) * 0x94d049bb133111ebULL;
    state ^= state >> 31;
  }
  return state;
}

uint64_t text_key(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

at::Generator random_stream(std::initializer_list<uint64_t> key) {
  return at::make_generator<at::CPUGeneratorImpl>(mix(key));
}

}  // namespace c2c
