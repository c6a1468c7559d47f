#include "cache/digest.h"

#include <array>
#include <bit>
#include <cstring>

namespace c2c {

namespace {

// Odd, so that multiplying is a bijection; the bits are those of square roots of primes.
constexpr std::array<uint64_t, 4> kFactors{0x6a09e667f3bcc909, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b,
                                           0xa54ff53a5f1d36f1};
using Lanes = std::array<uint64_t, 4>;

void step(Lanes& lanes, const std::byte* block) {
  for (size_t i = 0; i < 4; ++i) {
    uint64_t word;
    std::memcpy(&word, block + 8 * i, 8);
    lanes[i] = std::rotl((lanes[i] ^ word) * kFactors[i], 29);
  }
}

uint64_t mix(uint64_t h, uint64_t word) {
  h = (h ^ word) * kFactors[0];
  h ^= h >> 32;
  h *= kFactors[1];
  return h ^ (h >> 29);
}

}  // namespace

uint64_t digest(const void* data, size_t size) {
  const auto* at = static_cast<const std::byte*>(data);
  Lanes lanes = kFactors;
  size_t left = size;
  for (; left >= 32; left -= 32, at += 32) step(lanes, at);
  if (left > 0) {
    std::byte rest[32]{};
    std::memcpy(rest, at, left);
    step(lanes, rest);
  }
  uint64_t h = size;
  for (const uint64_t lane : lanes) h = mix(h, lane);
  return h;
}

std::string digest_text(const std::vector<uint64_t>& chunks, uint64_t size) {
  uint64_t h = mix(digest(chunks.data(), chunks.size() * sizeof(uint64_t)), size);
  std::string text(kDigestDigits, '0');
  for (size_t i = kDigestDigits; i-- > 0; h >>= 4) text[i] = "0123456789abcdef"[h & 15];
  return text;
}

}  // namespace c2c
