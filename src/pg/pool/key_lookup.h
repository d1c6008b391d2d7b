// key_lookup.h - finding one key by its id in the tables, whatever the cache holds.
//
// Reads one row of each table, as they are at the moment.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/quota/limits.h"
#include "pg/state/meter_store.h"

// A key as its row says, in the current context, and where its meter lies.
struct FoundKey {
  MeterPlace place;
  std::string_view provider;
  std::string_view account;  // empty: none
  keypool::Limits limits;
};

// False if there is no such key. Raises KP404 if it has no meter.
bool find_key(const keypool::KeyId &id, FoundKey *key);

// Only its provider. Raises KP404 if there is no such key.
std::string_view find_provider_of_key(const keypool::KeyId &id);

void warn_of_missing_meter(void);
