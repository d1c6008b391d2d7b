// private_memory.h - memory for secrets: out of the core files of this process (on Linux only), and wiped after use.
#pragma once

#include "pg/server/postgres_api.h"

// Zeroed memory for the life of the process, or null. Not inherited by what this process forks.
void *private_memory_allocate(size_t size);

// Keeps the copies of secrets that a library has made on the heap out of core files, together with the pages that they
// lie on: `count` secrets of `size` bytes (at least eight), each `stride` bytes after the one before. Looks for the
// secrets themselves: a copy that is encoded is not found. Takes some 0.1 ms, and does nothing where no core file could
// be written now.
void private_memory_hide_copies(const uint8_t *secrets, size_t size, size_t stride, int count);

// Wipes what lies in the current memory context when that is reset, errors included. For plaintext and key material
// that must be palloc'd.
void wipe_on_reset(void *bytes, Size size);
