// pool_cache.h - what this process knows of the providers, without ever being stale.
//
// Per provider: its rules (provider_rules.h); and once one of its keys was selected, or several were settled, its keys
// with their limits, their stored secrets taken apart, and the places of their meters. The cache holds what is
// committed (and what this transaction has done itself), under any isolation level, because what keypool does is not
// transactional. A provider is dropped when a change of it is announced, all are when relations_version changes; it is
// loaded again when it is asked for. A change that comes while a provider is loaded is for the next call: what is
// loaded is of after the call began. The cache is bounded by keypool.cache_size: when a provider is loaded, those that
// were used least recently make room.
//
// Pointers into the cache hold until the next call of pool_cache_open_* or the next command of the transaction.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/quota/walk.h"
#include "core/secret/envelope.h"
#include "pg/pool/provider_rules.h"

// Whether a secret has been seen to open with the keyring that is loaded.
enum class Opens : uint8 { kUnknown, kYes, kMissingMasterKey, kNo };

struct PoolKey {
  MeterPlace place;
  Opens opens;
  bool active;
  int32 priority;
  int32 weight;
  keypool::TimeUs inactive_until;  // not active: when it comes back; 0: it stays off
  keypool::TimeUs expires_at;      // 0: never
  const keypool::Limits *limits;   // these four are shared by keys for which they are the same
  ModelRule models;
  std::string_view account;  // empty: none
  text *label;               // null: none
  varlena *attributes;       // jsonb; null: none
  keypool::StoredSecret secret;
};

struct ModelOrders;  // model_orders.h

// A provider. In the list of all pools the most recently used are first.
struct Pool : dlist_node {
  std::string_view provider;
  uint32 hash;  // of the provider, as its changes are announced
  ProviderRules *rules;
  bool has_keys;  // they are loaded
  bool fresh;     // loaded by the last call: what is gone since then is no sign of a change that was missed
  int count;
  PoolKey *keys;              // [count]
  ModelOrders *orders;        // which of them is next
  uint32 keyring_generation;  // that `opens` speaks of
  MemoryContext context;      // of all of this
  Pool *next_with_hash;       // another provider with this hash
};

// A key that was found by its id, with the rules of its provider.
struct KeyReference {
  MeterPlace *place;
  std::string_view account;
  const keypool::Limits *limits;
  Pool *pool;  // whose keys may not be loaded
};

void pool_cache_init(void);

// The pool of a provider with its keys, and the tables of meters opened and locked; null (and the tables open all the
// same) if the provider has no key.
Pool *pool_cache_open_provider(std::string_view provider, LOCKMODE mode, MeterTables *tables);

// The key with this id, likewise. False, and nothing is open, if there is none. Its provider's keys are loaded only if
// they are asked for again and again between two changes.
bool pool_cache_open_key(const keypool::KeyId &id, LOCKMODE mode, KeyReference *key, MeterTables *tables);

// The rules of a provider that has keys or not, with the tables of meters opened and locked.
Pool *pool_cache_open_rules(std::string_view provider, LOCKMODE mode, MeterTables *tables);

// Which key or quota of a pool has this id.
struct PoolMember {
  enum Kind : uint8 { kNone, kKey, kQuota } kind;
  uint32 index;
};
PoolMember pool_cache_find(const Pool &pool, const keypool::KeyId &id);

// For a caller that found another meter, or none, where one of a provider should be: forgets the provider, so that it
// can try again. `attempt` counts from 0; after too many in a row this raises XX001.
void pool_cache_retry(uint32 hash, int attempt);

// After the newest pool has grown: drops the others, those that were used least recently first, while the cache is
// larger than it may be. Returns whether it still is.
bool pool_cache_make_room(void);

// The keypool.cache_size, in bytes, that a provider needs so as not to be dropped whenever another is used. An estimate
// that is rather too large.
Size pool_cache_need(int64 keys, int64 text_bytes);
