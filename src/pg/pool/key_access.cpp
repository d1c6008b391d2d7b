// key_access.cpp - reaching a key by its id, as far as the current user may.
#include "pg/pool/key_access.h"

#include "pg/pool/key_lookup.h"
#include "pg/server/report.h"

KeyReference key_access_open(const keypool::KeyId &id, Right right, LOCKMODE mode, MeterTables *tables) {
  KeyReference key;
  if (!pool_cache_open_key(id, mode, &key, tables)) report_unknown_key();
  privileges_require(right, key.pool->provider);
  return key;
}

void key_access_check(const keypool::KeyId &id, Right right) { privileges_require(right, find_provider_of_key(id)); }
