// affinity_keys.cpp - the keys of an order as conversations prefer them.
#include "pg/pool/affinity_keys.h"

#include <algorithm>

#include "core/quota/mix.h"

using keypool::AffinityKey;

// Where two keys have one account, the second gets the number of the first.
static void number_accounts(const Pool &pool, const ModelOrder &order, AffinityKey *keys) {
  for (uint32 i = 0; i < order.count; ++i) {
    keys[i].account = i;
    std::string_view account = pool.keys[order.keys[keys[i].candidate]].account;
    bool same = i > 0 && !account.empty() && keys[i - 1].priority == keys[i].priority &&
                account == pool.keys[order.keys[keys[i - 1].candidate]].account;
    if (same) keys[i].account = keys[i - 1].account;
  }
}

static AffinityKey *make_keys(const Pool &pool, const ModelOrder &order) {
  auto *keys = static_cast<AffinityKey *>(palloc_extended(Max(order.count, 1) * sizeof(AffinityKey), MCXT_ALLOC_HUGE));
  for (uint32 i = 0; i < order.count; ++i) {
    const PoolKey &key = pool.keys[order.keys[i]];
    keys[i] = {i, key.priority, 0, key.weight, keypool::HashOfId(key.place.id)};
  }
  std::sort(keys, keys + order.count, [&](const AffinityKey &a, const AffinityKey &b) {
    const PoolKey &one = pool.keys[order.keys[a.candidate]], &other = pool.keys[order.keys[b.candidate]];
    if (one.priority != other.priority) return one.priority < other.priority;
    return one.account != other.account ? one.account < other.account : one.place.id < other.place.id;
  });
  number_accounts(pool, order, keys);
  return keys;
}

const AffinityKey *affinity_keys(const Pool &pool, ModelOrder *order) {
  if (order->affinity_keys == nullptr) {
    MemoryContext before = MemoryContextSwitchTo(order->context);
    order->affinity_keys = make_keys(pool, *order);
    MemoryContextSwitchTo(before);
  }
  return order->affinity_keys;
}
