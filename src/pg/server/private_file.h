// private_file.h - reading files that hold secrets.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/status.h"

inline constexpr size_t kMaxPrivateFile = 64 * 1024;

// Reads a file that is safe to take secrets from into the buffer (kMaxPrivateFile bytes), which the caller wipes. By
// PostgreSQL's own rule for SSL keys that is a regular file that belongs to the server's user with mode 0600 or less,
// or to root with 0640 or less; and no larger than kMaxPrivateFile. kKeyring: it is not, or cannot be read. `what`
// names the file in the message.
keypool::Status private_file_read(const char *what, const char *path, char *buffer, size_t *size);
