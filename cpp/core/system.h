// Failures of the system, as Node names them.
#pragma once
#include <cerrno>
#include <string>

#include "core/error.h"

namespace c2c {

inline const char* errno_name(int error) {
  switch (error) {
    case ENOENT:
      return "ENOENT";
    case EACCES:
      return "EACCES";
    case EISDIR:
      return "EISDIR";
    case ENOMEM:
      return "ENOMEM";
    case EMFILE:
      return "EMFILE";
    case ENOSPC:
      return "ENOSPC";
    case EFBIG:
      return "EFBIG";
    case EDQUOT:
      return "EDQUOT";
    case EBADF:
      return "EBADF";
    case ENODEV:
      return "ENODEV";
    default:
      return "EIO";
  }
}

[[noreturn]] inline void io_failed(const std::string& path, const std::string& operation, int error) {
  const std::string system = errno_name(error);
  throw Error("IO_FAILED", operation + " " + path + ": " + system,
              {{"path", path}, {"operation", operation}, {"system", system}});
}

[[noreturn]] inline void file_invalid(const std::string& file, const std::string& reason) {
  throw Error("FILE_INVALID", file + ": " + reason, {{"file", file}, {"reason", reason}});
}

}  // namespace c2c
