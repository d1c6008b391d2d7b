// model_orders.cpp - the orders of a pool's keys, by model.
#include "pg/pool/model_orders.h"

#include <algorithm>

extern "C" {
#include "common/hashfn.h"
}

#include "core/quota/model_pattern.h"
#include "pg/server/clock.h"

using keypool::kNoIndex;
using keypool::TimeUs;

static constexpr int kMostNames = 1000;
static constexpr int kMostApart = 64;

// A name of a model that was asked for.
struct NameEntry {
  uint64 hash;  // 64 bits of a hash: two names that share them are taken for one
  ModelOrder *order;
};

struct RuleEntry {
  uint64 hash;  // of both arrays, likewise
  uint32 number;
};

// Lies in a context of its own, a child of the pool's, with all that it points to.
struct ModelOrders {
  MemoryContext context;
  TimeUs from;  // the keys that are on are the same from here
  TimeUs until;
  uint32 rule_count;        // distinct rules of models; 0: all keys and quotas are for all models
  const ModelRule **rules;  // [rule_count]
  uint32 *rule_of_key;      // kNoIndex: all models
  uint32 *rule_of_quota;
  int apart_count;
  uint32 apart[kMostApart];
  HTAB *names;
  ModelOrder *nameless;  // for requests that name no model, and for all while no rule tells models apart
  ModelOrder *first;
};

bool key_is_on(const PoolKey &key, TimeUs now) {
  if (key.expires_at != 0 && key.expires_at <= now) return false;
  return key.active || (key.inactive_until != 0 && key.inactive_until <= now);
}

bool key_returns(const PoolKey &key, TimeUs now) {
  return !key.active && key.inactive_until > now && key.inactive_until != kNever &&
         (key.expires_at == 0 || key.expires_at > key.inactive_until);
}

// Narrows the time in which the same keys are on to one side of a moment.
static void note_moment(TimeUs moment, TimeUs now, ModelOrders *orders) {
  if (moment == 0) return;
  if (moment <= now)
    orders->from = Max(orders->from, moment);
  else
    orders->until = Min(orders->until, moment);
}

static uint64 hash_of_array(const ArrayType *array, uint64 seed) {
  if (array == nullptr) return seed + 1;
  return hash_bytes_extended(reinterpret_cast<const unsigned char *>(array), static_cast<int>(VARSIZE(array)), seed);
}

// The number of a rule among the distinct ones.
static uint32 number_rule(const ModelRule &rule, HTAB *known, ModelOrders *orders) {
  if (rule.models == nullptr && rule.except_models == nullptr) return kNoIndex;
  uint64 hash = hash_of_array(rule.except_models, hash_of_array(rule.models, 0));
  bool found;
  auto *entry = static_cast<RuleEntry *>(hash_search(known, &hash, HASH_ENTER, &found));
  if (!found) {
    entry->number = orders->rule_count++;
    orders->rules[entry->number] = &rule;
  }
  return entry->number;
}

static HTAB *make_table(const char *name, Size entry_size, MemoryContext context) {
  HASHCTL control = {};
  control.keysize = sizeof(uint64);
  control.entrysize = entry_size;
  control.hcxt = context;
  return hash_create(name, 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static void number_rules(const Pool &pool, ModelOrders *orders) {
  HTAB *known = make_table("keypool model rules", sizeof(RuleEntry), CurrentMemoryContext);
  Size most = pool.count + pool.rules->quota_count;
  orders->rules = static_cast<const ModelRule **>(palloc(most * sizeof(ModelRule *)));
  orders->rule_of_key = static_cast<uint32 *>(palloc(most * sizeof(uint32)));
  orders->rule_of_quota = orders->rule_of_key + pool.count;
  for (int i = 0; i < pool.count; ++i) orders->rule_of_key[i] = number_rule(pool.keys[i].models, known, orders);
  for (int i = 0; i < pool.rules->quota_count; ++i)
    orders->rule_of_quota[i] = number_rule(pool.rules->quotas[i].models, known, orders);
  hash_destroy(known);
}

static ModelOrders *begin_orders(Pool *pool, TimeUs now) {
  MemoryContext context = AllocSetContextCreate(pool->context, "keypool orders", ALLOCSET_SMALL_SIZES);
  MemoryContext before = MemoryContextSwitchTo(context);
  auto *orders = static_cast<ModelOrders *>(palloc0(sizeof(ModelOrders)));
  orders->context = context;
  orders->until = kNever;
  for (int i = 0; i < pool->count; ++i) {
    if (!pool->keys[i].active) note_moment(pool->keys[i].inactive_until, now, orders);
    note_moment(pool->keys[i].expires_at, now, orders);
  }
  number_rules(*pool, orders);
  MemoryContextSwitchTo(before);
  return orders;
}

static void drop_orders(Pool *pool) {
  if (pool->orders == nullptr) return;
  MemoryContext context = pool->orders->context;
  pool->orders = nullptr;
  MemoryContextDelete(context);
}

// The quotas of a key, by their index, rising.
struct Applying {
  int count;  // which may be more than are noted
  uint32 quota[keypool::kQuotasOfKey + 1];
};

static Applying quotas_of_key(const Pool &pool, const PoolKey &key, const uint8 *matches) {
  Applying applying = {};
  for (int i = 0; i < pool.rules->quota_count && applying.count <= keypool::kQuotasOfKey; ++i) {
    uint32 rule = pool.orders->rule_of_quota[i];
    bool applies = (rule == kNoIndex || matches[rule]) && quota_covers(pool.rules->quotas[i], key.account);
    if (applies) applying.quota[applying.count++] = static_cast<uint32>(i);
  }
  return applying;
}

[[noreturn]] static void report_too_many_quotas(const Pool &pool, const Applying &applying) {
  const PoolQuota *quotas = pool.rules->quotas;
  auto name = [&](int i) {
    std::string_view its = quotas[applying.quota[i]].name;
    return pnstrdup(its.data(), its.size());
  };
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
          errmsg("more than %d quotas apply to one request of a key", keypool::kQuotasOfKey),
          errdetail("Among them are \"%s\", \"%s\", \"%s\" and \"%s\".", name(0), name(1), name(2), name(3)),
          errhint("Delete one of them, or give it other models or another account."));
  pg_unreachable();
}

static keypool::KeyQuotas key_quotas(const Pool &pool, const PoolKey &key, const uint8 *matches) {
  Applying applying = quotas_of_key(pool, key, matches);
  if (applying.count > keypool::kQuotasOfKey) report_too_many_quotas(pool, applying);
  keypool::KeyQuotas quotas = {{kNoIndex, kNoIndex, kNoIndex}};
  std::copy_n(applying.quota, applying.count, quotas.quota);
  return quotas;
}

static void *allocate(Size size) {
  return MemoryContextAllocExtended(CurrentMemoryContext, Max(size, 1), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
}

// Which keys are candidates of an order: those that are on and serve its models.
static void find_candidates(const Pool &pool, TimeUs now, ModelOrder *made) {
  made->keys = static_cast<uint32 *>(allocate(pool.count * sizeof(uint32)));
  made->candidate_of = static_cast<uint32 *>(allocate(pool.count * sizeof(uint32)));
  for (int i = 0; i < pool.count; ++i) {
    uint32 rule = pool.orders->rule_of_key[i];
    bool is_for_models = rule == kNoIndex || made->matches[rule];
    bool serves = is_for_models && key_is_on(pool.keys[i], now);
    made->has_returning |= is_for_models && key_returns(pool.keys[i], now);
    made->candidate_of[i] = serves ? made->count : kNoIndex;
    if (serves) made->keys[made->count++] = static_cast<uint32>(i);
  }
}

static void fill_order(const Pool &pool, ModelOrder *made) {
  Size count = made->count;
  auto *candidates = static_cast<keypool::Candidate *>(allocate(count * sizeof(keypool::Candidate)));
  auto *quotas = static_cast<keypool::KeyQuotas *>(allocate(count * sizeof(keypool::KeyQuotas)));
  auto *rules = static_cast<keypool::CountRule *>(allocate(pool.rules->quota_count * sizeof(keypool::CountRule)));
  auto *scratch = static_cast<uint32_t *>(allocate(count * sizeof(uint32_t)));
  for (uint32 i = 0; i < made->count; ++i) {
    const PoolKey &key = pool.keys[made->keys[i]];
    candidates[i].id = key.place.id;
    candidates[i].priority = key.priority;
    quotas[i] = key_quotas(pool, key, made->matches);
  }
  for (int i = 0; i < pool.rules->quota_count; ++i) rules[i] = pool.rules->quotas[i].limits.rule;
  uint32 groups = keypool::GroupCandidates(quotas, candidates, scratch, made->count);
  keypool::OrderSize size = {made->count, groups, static_cast<uint32>(pool.rules->quota_count)};
  made->order =
      keypool::SelectionOrder(size, candidates, quotas, rules, allocate(keypool::SelectionOrder::BlockBytes(size)));
  pfree(quotas);
  pfree(rules);
  pfree(scratch);
}

// What an error on the way leaves is freed with the caller's context.
static ModelOrder *make_order(Pool *pool, const uint8 *matches, uint32 apart, TimeUs now) {
  MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "keypool order", ALLOCSET_SMALL_SIZES);
  MemoryContext before = MemoryContextSwitchTo(context);
  auto *made = static_cast<ModelOrder *>(allocate(sizeof(ModelOrder)));
  made->memory = {};
  made->context = context;
  made->matches = static_cast<uint8 *>(memcpy(allocate(pool->orders->rule_count), matches, pool->orders->rule_count));
  made->apart = apart;
  made->tells_apart = pool->orders->rule_count != 0;
  find_candidates(*pool, now, made);
  fill_order(*pool, made);
  MemoryContextSwitchTo(before);
  MemoryContextSetParent(context, pool->orders->context);
  made->next = pool->orders->first;
  pool->orders->first = made;
  return made;
}

static uint8 *match_rules(const ModelOrders &orders, std::string_view model) {
  auto *matches = static_cast<uint8 *>(palloc(Max(orders.rule_count, 1)));
  for (uint32 i = 0; i < orders.rule_count; ++i) matches[i] = model_rule_serves(*orders.rules[i], model);
  return matches;
}

static bool is_told_apart(const ModelOrders &orders, uint32 model_hash) {
  return std::find(orders.apart, orders.apart + orders.apart_count, model_hash) != orders.apart + orders.apart_count;
}

// The order that models with these matches share, or that of this model alone.
static ModelOrder *find_or_make(Pool *pool, std::string_view model, TimeUs now) {
  ModelOrders *orders = pool->orders;
  uint32 hash = model.empty() ? 0 : keypool::ModelHash(model);
  uint32 apart = is_told_apart(*orders, hash) ? hash : 0;
  uint8 *matches = match_rules(*orders, model);
  for (ModelOrder *order = orders->first; order != nullptr; order = order->next) {
    if (order->apart == apart && memcmp(order->matches, matches, orders->rule_count) == 0) return order;
  }
  return make_order(pool, matches, apart, now);
}

static ModelOrder *order_of_name(Pool *pool, std::string_view model, TimeUs now) {
  ModelOrders *orders = pool->orders;
  uint64 hash =
      hash_bytes_extended(reinterpret_cast<const unsigned char *>(model.data()), static_cast<int>(model.size()), 0);
  if (orders->names == nullptr) orders->names = make_table("keypool models", sizeof(NameEntry), orders->context);
  auto *entry = static_cast<NameEntry *>(hash_search(orders->names, &hash, HASH_FIND, nullptr));
  if (entry != nullptr) return entry->order;
  ModelOrder *order = find_or_make(pool, model, now);
  if (hash_get_num_entries(orders->names) >= kMostNames) {
    hash_destroy(orders->names);
    orders->names = make_table("keypool models", sizeof(NameEntry), orders->context);
  }
  static_cast<NameEntry *>(hash_search(orders->names, &hash, HASH_ENTER, nullptr))->order = order;
  return order;
}

static ModelOrder *nameless_order(Pool *pool, TimeUs now) {
  ModelOrders *orders = pool->orders;
  if (orders->nameless == nullptr) orders->nameless = find_or_make(pool, {}, now);
  return orders->nameless;
}

static ModelOrder *open_order(Pool *pool, std::string_view model, TimeUs now) {
  bool all_alike = pool->orders->rule_count == 0 && pool->orders->apart_count == 0;
  return model.empty() || all_alike ? nameless_order(pool, now) : order_of_name(pool, model, now);
}

// Models that are told apart stay so.
static void renew_orders(Pool *pool, TimeUs now) {
  uint32 apart[kMostApart];
  int count = pool->orders->apart_count;
  memcpy(apart, pool->orders->apart, sizeof(apart));
  drop_orders(pool);
  pool->orders = begin_orders(pool, now);
  memcpy(pool->orders->apart, apart, sizeof(apart));
  pool->orders->apart_count = count;
}

ModelOrder *model_order_open(Pool *pool, std::string_view model, TimeUs now) {
  ModelOrders *orders = pool->orders;
  if (orders != nullptr && (now < orders->from || now >= orders->until)) drop_orders(pool);
  if (pool->orders == nullptr) pool->orders = begin_orders(pool, now);
  const ModelOrder *newest = pool->orders->first;
  ModelOrder *order = open_order(pool, model, now);
  if (order == newest || pool->orders->first == newest) return order;
  // It is new. Orders of models that nobody asks for any more go first where there is no room.
  if (!pool_cache_make_room() || order->next == nullptr) return order;
  renew_orders(pool, now);
  return open_order(pool, model, now);
}

void model_orders_tell_apart(Pool *pool, uint32 model_hash) {
  ModelOrders *orders = pool->orders;
  if (is_told_apart(*orders, model_hash)) return;
  if (orders->apart_count == kMostApart)
    orders->apart_count = 0;  // those that are told apart already have their orders
  orders->apart[orders->apart_count++] = model_hash;
  if (orders->names != nullptr) hash_destroy(orders->names);
  orders->names = nullptr;
}

void model_orders_wake_all(Pool *pool) {
  if (pool->orders == nullptr) return;
  for (ModelOrder *order = pool->orders->first; order != nullptr; order = order->next) order->order.WakeAll();
}
