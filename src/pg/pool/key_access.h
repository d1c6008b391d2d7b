// key_access.h - reaching a key by its id, as far as the current user may.
#pragma once

#include "pg/server/postgres_api.h"

#include "pg/catalog/privileges.h"
#include "pg/pool/pool_cache.h"

// The key, and the tables of meters opened and locked. Raises KP404 if there is none, 42501 if the user has no such
// right on its provider.
KeyReference key_access_open(const keypool::KeyId &id, Right right, LOCKMODE mode, MeterTables *tables);

// Only raises. Reads one row, whatever the cache holds: for callers that change the key, and so drop its provider.
void key_access_check(const keypool::KeyId &id, Right right);
