// model_orders.h - the orders of a pool's keys: one for each set of models that are told apart.
//
// Which keys serve a request, and which quotas apply to them, depends on the model that it names. Models that match the
// same patterns share an order; it is made when the first of them is asked for. A model that is blocked on some key
// (a 429 with scope => 'model') is told apart from then on, since what is remembered of a key in a shared order would
// hold for the others, too.
//
// An order holds for as long as its keys are the ones that are on: when the time of one comes that is off for a time or
// expires, or the clock steps back behind such a time, all orders are made anew from what is loaded.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/quota/affinity.h"
#include "pg/pool/pool_cache.h"

struct ModelOrder {
  keypool::SelectionOrder order;  // its quotas are those of the pool's rules
  keypool::WalkMemory memory;
  uint32 count;          // of candidates
  bool has_returning;    // a key for these models is off for a time
  bool tells_apart;      // some key or quota is for some models only
  uint32 *keys;          // of each candidate: its index in the pool
  uint32 *candidate_of;  // of each key of the pool: kNoIndex if it is none
  uint32 apart;          // the hash of the one model that it is for; 0: all models that match the same patterns
  const uint8 *matches;  // which rules of models they match
  MemoryContext context;                      // of all of this
  const keypool::AffinityKey *affinity_keys;  // affinity_keys.h; null: not made yet
  ModelOrder *next;
};

// The order for a model (empty: none is named) at a time. It holds until the next call. Raises 22023 if more quotas
// apply to one of its keys than a request can draw on; the message names them.
ModelOrder *model_order_open(Pool *pool, std::string_view model, keypool::TimeUs now);

// From the next model_order_open on, this model has an order of its own.
void model_orders_tell_apart(Pool *pool, uint32 model_hash);

// What was remembered of keys and quotas holds no longer.
void model_orders_wake_all(Pool *pool);

// Whether a key may be selected at all now.
bool key_is_on(const PoolKey &key, keypool::TimeUs now);

// Whether it is off now, and comes back by itself.
bool key_returns(const PoolKey &key, keypool::TimeUs now);
