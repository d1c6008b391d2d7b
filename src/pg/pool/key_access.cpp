// key_access.cpp - reaching a key by its id, as far as the current user may.
#include "pg/pool/key_access.h"

KeyReference key_access_open(const keypool::KeyId &id, Right right, LOCKMODE mode, Relation *state) {
  KeyReference found = pool_cache_open_key(id, mode, state);
  privileges_require(right, found.provider);
  return found;
}

void key_access_check(const keypool::KeyId &id, Right right) { privileges_require(right, find_provider_of_key(id)); }
