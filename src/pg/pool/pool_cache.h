// pool_cache.h - what this process knows of the providers' keys, without ever being stale.
//
// Per provider: its keys with their limits, their stored secrets taken apart, and the addresses of their states. The
// cache holds what is committed (and what this transaction has done itself), under any isolation level, because what
// keypool does is not transactional. A provider is dropped when a change of it is announced, all are when
// relations_version changes; it is loaded again when it is asked for. A change that comes while a provider is loaded is
// for the next call: what is loaded is of after the call began. The cache is bounded by keypool.cache_size: when a
// provider is loaded, those that were used least recently make room.
//
// Pointers into the cache hold until the next call of pool_cache_open_* or the next command of the transaction.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/secret/envelope.h"
#include "core/selection_order.h"
#include "core/window.h"
#include "pg/pool/key_lookup.h"

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
  uint64 wakeups_seen;             // while keys wait: how many posts of wakeups.h have been taken in
  uint32 keyring_generation;       // that `opens` speaks of

  uint32 hash;           // of the provider, as its changes are announced
  bool cached;           // else a copy for one call
  bool fresh;            // loaded by the last call: what is gone since then is no sign of a change that was missed
  Pool *next_with_hash;  // another provider with this hash
};

void pool_cache_init(void);

// The pool of a provider, with keypool.key_state opened and locked; null (and the relation open all the same) if the
// provider has no key.
Pool *pool_cache_open_provider(std::string_view provider, LOCKMODE mode, Relation *state);

KeyReference pool_key_reference(const Pool &pool, int index);

// The key with this id, likewise. Raises KP404 if there is none. The pool is loaded only if its keys are asked for
// again and again between two changes.
KeyReference pool_cache_open_key(const keypool::KeyId &id, LOCKMODE mode, Relation *state);

// The index of a key in a cached pool, or -1.
int pool_cache_index(const Pool &pool, const keypool::KeyId &id);

// For a caller that found another key, or none, at the address of a key: forgets its provider, so that it can try
// again. `attempt` counts from 0; after too many in a row this raises XX001.
void pool_cache_retry(uint32 hash, int attempt);

// The keypool.cache_size, in bytes, that a provider needs so as not to be dropped whenever another is used. An estimate
// that is rather too large.
Size pool_cache_need(int64 keys, int64 text_bytes);

// A pool of copies, in the current memory context, of those keys that were switched off until a time that is now past,
// all active. Null if there are none. It points into the given pool.
Pool *pool_of_returning_keys(const Pool &pool, keypool::TimeUs now);
