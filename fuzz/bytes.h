// Takes numbers off the front of a fuzzer's input; past its end everything is 0.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

namespace c2c::fuzz {

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : at_(data), left_(size) {}
  template <class T>
  T take() {
    T value{};
    const size_t count = std::min(left_, sizeof(T));
    std::memcpy(&value, at_, count);
    at_ += count;
    left_ -= count;
    return value;
  }
  // A number below `limit`.
  uint8_t below(uint8_t limit) { return static_cast<uint8_t>(take<uint8_t>() % limit); }
  std::string rest() { return {reinterpret_cast<const char*>(at_), left_}; }

 private:
  const uint8_t* at_;
  size_t left_;
};

}  // namespace c2c::fuzz
