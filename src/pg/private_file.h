// private_file.h - reading files that hold secrets.
#pragma once

#include "pg/postgres_api.h"

#include <sys/stat.h>

#include "core/status.h"

inline constexpr size_t kMaxPrivateFile = 64 * 1024;

// Whether a file is safe to take secrets from, by PostgreSQL's own rule for SSL keys: a regular file that belongs to
// the server's user with mode 0600 or less, or to root with 0640 or less; and no larger than kMaxPrivateFile. `what`
// names the file in the message.
keypool::Status private_file_check(const char *what, const struct stat &attributes);

// Reads it whole into the buffer (kMaxPrivateFile bytes), which the caller wipes.
keypool::Status private_file_read(const char *what, const char *path, char *buffer, size_t *size);
