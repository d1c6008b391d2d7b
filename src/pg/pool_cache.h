// pool_cache.h - what this process knows of the providers' keys, without ever being stale.
//
// Per provider: its keys with their limits, their stored secrets taken apart, and the addresses of their states. The
// cache holds what is committed (and what this transaction has done itself), under any isolation level, because what
// keypool does is not transactional. A provider is dropped when a change of it is announced, all are when
// relations_version changes; it is loaded again when it is asked for. The cache is bounded by keypool.cache_size: when
// a provider is loaded, those that were used least recently make room.
//
// Pointers into the cache hold until the next call of pool_cache_open_* or the next command of the transaction.
#pragma once

#include "pg/postgres_api.h"

#include <string_view>

#include "core/envelope.h"
#include "core/selection_order.h"
#include "core/window.h"

// Whether a secret has been seen to open with the keyring that is loaded.
enum class Opens : uint8 { kUnknown, kYes, kMissingMasterKey, kNo };

struct PoolKey {
  ItemPointerData address;  // of its state
  bool active;
  Opens opens;
  Buffer buffer;  // in which its state was seen last, or invalid
  keypool::Limits limits;
  keypool::TimeUs inactive_until;  // 0: no such time
  text *label;                     // null: none
  keypool::StoredSecret secret;
};

// One allocation, with all that it points to. In the list of all pools the most recently used are first.
struct Pool : dlist_node {
  std::string_view provider;
  int count;
  int active_count;                // the active keys come first
  PoolKey *keys;                   // [count]
  keypool::Candidate *candidates;  // [count], of the same keys
  keypool::SelectionOrder order;   // over the active ones
  uint64 freed_seen;               // while keys wait: how many posts of freed_keys.h have been taken in
  uint32 keyring_generation;       // that `opens` speaks of

  uint32 hash;           // of the provider, as its changes are announced
  bool cached;           // else a copy for one call
  Pool *next_with_hash;  // another provider with this hash
};

void pool_cache_init(void);

// The pool of a provider, with keypool.key_state opened and locked; null (and the relation open all the same) if the
// provider has no key.
Pool *pool_cache_open_provider(std::string_view provider, LOCKMODE mode, Relation *state);

// A key and the pool that it is in.
struct KeyReference {
  Pool *pool;
  int index;

  const PoolKey &key() const { return pool->keys[index]; }
  const keypool::KeyId &id() const { return pool->candidates[index].id; }
};

// The key with this id, likewise. Raises KP404 if there is none.
KeyReference pool_cache_open_key(const keypool::KeyId &id, LOCKMODE mode, Relation *state);

// The index of a key in a cached pool, or -1.
int pool_cache_index(const Pool &pool, const keypool::KeyId &id);

// For a caller that found another key, or none, at the address of a key: forgets everything, so that it can try again.
// `attempt` counts from 0; after too many in a row this raises XX001.
void pool_cache_retry(int attempt);

// A pool of copies, in the current memory context, of those keys that were switched off until a time that is now past,
// all active. Null if there are none. It points into the given pool.
Pool *pool_of_returning_keys(const Pool &pool, keypool::TimeUs now);
