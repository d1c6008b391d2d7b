// provider_pools.h - the providers that a user may look at, one after the other, as selections know them.
#pragma once

#include "pg/server/postgres_api.h"

#include "pg/pool/pool_cache.h"

// A provider, and the tables of meters, opened to look at them. It may be without keys.
struct ShownPool {
  Pool *pool;
  MeterTables tables;
};

// Puts rows of a provider; false if the pool shows what has changed.
using ShowPool = bool (*)(ReturnSetInfo *result, text *provider, const ShownPool &shown);

// Returns the set that `show` puts of the provider that is the first argument, or of all that have keys or quotas and
// that the user may look at. Raises 42501 if one is named and the user may not.
Datum show_providers(FunctionCallInfo fcinfo, ShowPool show);
