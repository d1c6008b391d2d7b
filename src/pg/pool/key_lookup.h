// key_lookup.h - finding one key by its id in the tables, whatever the cache holds.
//
// Reads one row of each table, as they are at the moment.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/key_id.h"

// A key, and where its state lies.
struct KeyReference {
  keypool::KeyId id;
  ItemPointerData address;
  uint32 hash;                // of its provider, as its changes are announced
  std::string_view provider;  // in the cache, or in the current context
};

// The key with this id. Raises KP404 if there is none, or if it has no state, which is warned of.
KeyReference find_key(const keypool::KeyId &id);

// Only its provider, in the current context. Raises KP404 if there is no such key.
std::string_view find_provider_of_key(const keypool::KeyId &id);

void warn_of_missing_state(void);
