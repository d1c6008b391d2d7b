// provider_pools.h - the providers that a user may look at, one after the other, as selections know them.
#pragma once

#include "pg/server/postgres_api.h"

#include "pg/pool/pool_cache.h"

// The provider of the first argument, or all that have keys or quotas: as texts, those that the user may look at.
// Raises 42501 if one is named and is none of these.
List *providers_to_show(FunctionCallInfo fcinfo);

// A provider, and the tables of meters, opened to look at them. It may be without keys.
struct ShownPool {
  Pool *pool;
  MeterTables tables;
};

// Puts rows of a provider; false if the pool shows what has changed.
using ShowPool = bool (*)(ReturnSetInfo *result, text *provider, const ShownPool &shown);

// Adds to a result what `show` puts of a provider, once.
void show_pool(text *provider, ReturnSetInfo *result, ShowPool show);
