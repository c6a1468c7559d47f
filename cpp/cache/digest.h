// A checksum of files: it notices damage, not forgery. A change inside any eight bytes is noticed for sure, since every
// step is a bijection of the word and of what came before; larger ones escape once in 2^64.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace c2c {

// What one step hashes: chunks are hashed apart (by several threads, or while they are written) and then their digests.
constexpr size_t kDigestChunk = size_t{1} << 20;
// A checksum as text: so many lower-case hexadecimal digits.
constexpr size_t kDigestDigits = 16;

uint64_t digest(const void* data, size_t size);
// Of a file, from those of its chunks.
std::string digest_text(const std::vector<uint64_t>& chunks, uint64_t size);

}  // namespace c2c
