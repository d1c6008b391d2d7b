// status.h - how the core reports a failure: a code and a message, by value.
//
// The core never throws and never prints. A message names the argument or the place that is wrong; it
// never repeats input, so it can never hold a secret.
#pragma once

#include <cstdint>

namespace keypool {

enum class Code : uint8_t {
  kOk,
  kInvalidArgument,   // the caller gave a value that is out of range or malformed
  kKeyring,           // the keyring file cannot be used as it stands
  kWrongMasterKey,    // a master key of the keyring is another than the one that is known by its id
  kMissingMasterKey,  // a secret names a master key that the keyring lacks
  kNotAuthentic,      // a sealed secret does not open: altered, moved, or sealed with another key
  kInternal,          // out of memory, or the cipher library failed
};

struct [[nodiscard]] Status {
  Code code = Code::kOk;
  char message[160];  // empty if ok

  Status() { message[0] = '\0'; }
  bool ok() const { return code == Code::kOk; }
};

// Makes a failure with a printf-style message; what does not fit is cut.
Status Failure(Code code, const char *format, ...) noexcept __attribute__((format(printf, 2, 3)));

}  // namespace keypool
