// What every test program says: failures by name, and a last line "N passed, N failed".
#pragma once
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>

#include "core/error.h"

namespace c2c {

inline int passed = 0, failed = 0;

inline void run(const std::string& name, const std::function<bool()>& body) {
  bool ok = false;
  std::string note;
  try {
    ok = body();
  } catch (const std::exception& error) {
    note = error.what();
  }
  (ok ? passed : failed)++;
  if (!ok) std::printf("FAILED %s %s\n", name.c_str(), note.c_str());
}

inline bool throws(const std::string& code, const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.code == code;
  }
  return false;
}

// The larger error of two; what is not a number is the largest.
inline double worse(double a, double b) { return std::isnan(a) || a >= b ? a : b; }

// The last line, and main's result.
inline int result() {
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace c2c
