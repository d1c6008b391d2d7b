// status.cpp - making a failure.
#include "core/status.h"

#include <cstdarg>
#include <cstdio>

namespace keypool {

Status Failure(Code code, const char *format, ...) noexcept {
  Status status;
  status.code = code;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(status.message, sizeof(status.message), format, arguments);
  va_end(arguments);
  return status;
}

}  // namespace keypool
