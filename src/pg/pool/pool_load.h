// pool_load.h - reading a provider's keys into a pool.
#pragma once

#include "pg/server/postgres_api.h"

#include "pg/pool/pool_cache.h"

// Reads a provider's rows, as they are now, into a memory context. Keys without a meter cannot be used and are left
// out, with a warning.
void load_pool_keys(std::string_view provider, MemoryContext context, PoolKey **keys, int *count);

// The bytes that a key takes in the cache, beside its texts.
Size pool_key_size(void);
