// pool_cache.cpp - what this process knows of the providers.
#include "pg/pool/pool_cache.h"

#include <utility>

#include "pg/catalog/provider_changes.h"
#include "pg/catalog/relations.h"
#include "pg/pool/key_lookup.h"
#include "pg/pool/model_orders.h"
#include "pg/pool/pool_load.h"
#include "pg/server/arguments.h"
#include "pg/server/report.h"
#include "pg/server/settings.h"

// All providers with one hash.
struct HashEntry {
  uint32 hash;
  Pool *first;
};

// A key that is loaded, or a quota.
struct MemberEntry {
  keypool::KeyId id;
  Pool *pool;
  PoolMember member;
};

static struct {
  MemoryContext context;  // what it takes is in its children: the tables' and one for each pool
  MemoryContext tables;
  HTAB *pools_by_hash;
  HTAB *members_by_id;
  dlist_head pools_by_use;
  Pool *last_pool;   // that was asked for; most calls of a process ask for the same
  uint64 version;    // relations_version that the cache is of; 0: it is of no use
  bool outgrown;     // the tables, which never shrink, take more than they should
  uint8 misses[64];  // keys of providers with such hashes that were not loaded, since the last change
} cache;

static HTAB *make_table(const char *name, Size key_size, Size entry_size) {
  HASHCTL control = {};
  control.keysize = key_size;
  control.entrysize = entry_size;
  control.hcxt = cache.tables;
  return hash_create(name, 64, &control, HASH_ELEM | HASH_CONTEXT | HASH_BLOBS);
}

void pool_cache_init(void) {
  cache.context = AllocSetContextCreate(CacheMemoryContext, "keypool cache", ALLOCSET_SMALL_SIZES);
}

static void drop_all(void) {
  cache.version = 0;
  cache.last_pool = nullptr;
  dlist_init(&cache.pools_by_use);
  MemoryContextReset(cache.context);  // and its children are deleted
  cache.tables = AllocSetContextCreate(cache.context, "keypool tables", ALLOCSET_SMALL_SIZES);
  cache.pools_by_hash = make_table("keypool pools", sizeof(uint32), sizeof(HashEntry));
  cache.members_by_id = make_table("keypool members", sizeof(keypool::KeyId), sizeof(MemberEntry));
}

static void enter_member(Pool *pool, const keypool::KeyId &id, PoolMember::Kind kind, int index) {
  auto *entry = static_cast<MemberEntry *>(hash_search(cache.members_by_id, &id, HASH_ENTER, nullptr));
  entry->pool = pool;
  entry->member = {kind, static_cast<uint32>(index)};
}

static void remove_member(const Pool *pool, const keypool::KeyId &id) {
  auto *entry = static_cast<MemberEntry *>(hash_search(cache.members_by_id, &id, HASH_FIND, nullptr));
  if (entry != nullptr && entry->pool == pool) hash_search(cache.members_by_id, &id, HASH_REMOVE, nullptr);
}

static void drop_pool(Pool *pool) {
  if (cache.last_pool == pool) cache.last_pool = nullptr;
  for (int i = 0; i < pool->count; ++i) remove_member(pool, pool->keys[i].place.id);
  for (int i = 0; i < pool->rules->quota_count; ++i) remove_member(pool, pool->rules->quotas[i].place.id);
  auto *entry = static_cast<HashEntry *>(hash_search(cache.pools_by_hash, &pool->hash, HASH_FIND, nullptr));
  Pool **link = &entry->first;
  while (*link != pool) link = &(*link)->next_with_hash;
  *link = pool->next_with_hash;
  if (entry->first == nullptr) hash_search(cache.pools_by_hash, &pool->hash, HASH_REMOVE, nullptr);
  dlist_delete(pool);
  MemoryContextDelete(pool->context);
}

// Takes in what was announced, and drops what is no longer true.
static void take_in_changes(void) {
  uint64 version = relations_version();
  const ProviderChanges &changes = take_provider_changes();
  if (cache.version != version || changes.all || cache.outgrown) {
    drop_all();
    cache.outgrown = false;
    memset(cache.misses, 0, sizeof(cache.misses));
    cache.version = version;
    return;
  }
  for (int i = 0; i < changes.count; ++i) {
    const uint32 &hash = changes.hashes[i];
    cache.misses[hash % lengthof(cache.misses)] = 0;
    while (auto *entry = static_cast<HashEntry *>(hash_search(cache.pools_by_hash, &hash, HASH_FIND, nullptr)))
      drop_pool(entry->first);
  }
}

// Whether the places that were cached, or looked up since the changes were taken in, still hold.
static bool has_places(void) { return cache.version == relations_version() && cache.version != 0; }

// Whether what is cached of the providers with this hash is still true.
static bool is_current(uint32 hash) { return has_places() && !provider_change_came(hash); }

void pool_cache_retry(uint32 hash, int attempt) {
  static constexpr int kMaxAttempts = 10;  // a row moves seldom, and hardly ever twice
  CHECK_FOR_INTERRUPTS();
  if (attempt >= kMaxAttempts)
    ereport(ERROR, errcode(ERRCODE_DATA_CORRUPTED),
            errmsg("keypool.key_meters or keypool.quota_meters holds a row that this keypool cannot read"),
            errhint("If the extension was updated, reconnect; if the table was altered, undo that."));
  assume_provider_change(hash);
}

Size pool_cache_need(int64 keys, int64 text_bytes) {
  Size entry = MAXALIGN(sizeof(HASHELEMENT)) + MAXALIGN(sizeof(MemberEntry)) + sizeof(HASHELEMENT *);
  Size other = 64 * 1024;  // the tables when they are empty, and names
  // Tables and arrays take memory in steps that double, and so do texts.
  return other + keys * (2 * pool_key_size() + 2 * entry) + 2 * text_bytes;
}

// While a pool is entered into the tables the cache is of no use, so that what an error leaves half done is dropped.
static void enter_keys(Pool *pool) {
  uint64 version = std::exchange(cache.version, 0);
  pool->has_keys = true;
  for (int i = 0; i < pool->count; ++i) enter_member(pool, pool->keys[i].place.id, PoolMember::kKey, i);
  cache.version = version;
}

static void enter_pool(Pool *pool) {
  uint64 version = std::exchange(cache.version, 0);
  dlist_push_head(&cache.pools_by_use, pool);
  bool found;
  auto *by_hash = static_cast<HashEntry *>(hash_search(cache.pools_by_hash, &pool->hash, HASH_ENTER, &found));
  pool->next_with_hash = found ? by_hash->first : nullptr;
  by_hash->first = pool;
  for (int i = 0; i < pool->rules->quota_count; ++i)
    enter_member(pool, pool->rules->quotas[i].place.id, PoolMember::kQuota, i);
  cache.version = version;
}

bool pool_cache_make_room(void) {
  Size limit = static_cast<Size>(keypool_cache_size) * 1024;
  auto is_full = [&] { return MemoryContextMemAllocated(cache.context, true) > limit; };
  while (is_full() && dlist_has_next(&cache.pools_by_use, dlist_head_node(&cache.pools_by_use)))
    drop_pool(static_cast<Pool *>(dlist_tail_node(&cache.pools_by_use)));
  // A pool that is large by itself has large tables.
  auto *newest = static_cast<Pool *>(dlist_head_node(&cache.pools_by_use));
  cache.outgrown = MemoryContextMemAllocated(cache.tables, true) > limit / 2 &&
                   MemoryContextMemAllocated(newest->context, true) < limit / 2;
  return is_full();
}

// Loads a provider, without its keys. What an error on the way leaves is freed with the caller's context.
static Pool *load_rules(std::string_view provider, uint32 hash) {
  MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "keypool pool", ALLOCSET_SMALL_SIZES);
  MemoryContext before = MemoryContextSwitchTo(context);
  auto *pool = static_cast<Pool *>(palloc0(sizeof(Pool)));
  auto *name = static_cast<char *>(memcpy(palloc(provider.size()), provider.data(), provider.size()));
  pool->provider = {name, provider.size()};
  pool->hash = hash;
  pool->context = context;
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  pool->rules = load_provider_rules(provider, snapshot);
  UnregisterSnapshot(snapshot);
  MemoryContextSwitchTo(before);
  MemoryContextSetParent(context, cache.context);
  pool->fresh = true;
  enter_pool(pool);
  return pool;
}

// Loads the keys of a provider, which was the last to be asked for.
static void load_keys(Pool *pool) {
  MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "keypool keys", ALLOCSET_SMALL_SIZES);
  PoolKey *keys;
  int count;
  load_pool_keys(pool->provider, context, &keys, &count);
  MemoryContextSetParent(context, pool->context);
  pool->keys = keys;
  pool->count = count;
  pool->fresh = true;
  enter_keys(pool);
}

static uint32 hash_of(std::string_view provider) {
  Pool *last = cache.last_pool;
  return last != nullptr && last->provider == provider ? last->hash : provider_change_hash(provider);
}

static Pool *cached_pool(std::string_view provider, uint32 hash) {
  if (cache.last_pool != nullptr && cache.last_pool->provider == provider) return cache.last_pool;
  auto *entry = static_cast<HashEntry *>(hash_search(cache.pools_by_hash, &hash, HASH_FIND, nullptr));
  for (Pool *pool = entry ? entry->first : nullptr; pool != nullptr; pool = pool->next_with_hash)
    if (pool->provider == provider) return pool;
  return nullptr;
}

static void note_use(Pool *pool) {
  cache.last_pool = pool;
  dlist_move_head(&cache.pools_by_use, pool);
}

PoolMember pool_cache_find(const Pool &pool, const keypool::KeyId &id) {
  auto *entry = static_cast<MemberEntry *>(hash_search(cache.members_by_id, &id, HASH_FIND, nullptr));
  return entry != nullptr && entry->pool == &pool ? entry->member : PoolMember{PoolMember::kNone, 0};
}

// The pool of a provider, loaded as far as it is needed, the newest in use. `*loaded` says whether anything was.
static Pool *provide_pool(std::string_view provider, uint32 hash, bool with_keys, bool *loaded) {
  Pool *pool = cached_pool(provider, hash);
  *loaded = pool == nullptr || (with_keys && !pool->has_keys);
  if (pool == nullptr)
    pool = load_rules(provider, hash);
  else
    pool->fresh = false;
  note_use(pool);
  if (with_keys && !pool->has_keys) load_keys(pool);
  if (*loaded) pool_cache_make_room();
  return pool;
}

// Opens the tables of meters for a pool. False, and nothing is open, if the pool is no longer true by then. A change
// that came while it was loaded is for the next call.
static bool open_tables(const Pool &pool, bool loaded, LOCKMODE mode, MeterTables *tables) {
  *tables = meter_tables_open(mode, pool.rules->quota_count > 0);
  if (loaded ? has_places() : is_current(pool.hash)) return true;
  meter_tables_close(*tables);
  return false;
}

static Pool *open_pool(std::string_view provider, bool with_keys, LOCKMODE mode, MeterTables *tables) {
  for (;;) {
    take_in_changes();
    bool loaded;
    Pool *pool = provide_pool(provider, hash_of(provider), with_keys, &loaded);
    if (open_tables(*pool, loaded, mode, tables)) return pool;
  }
}

Pool *pool_cache_open_provider(std::string_view provider, LOCKMODE mode, MeterTables *tables) {
  Pool *pool = open_pool(provider, true, mode, tables);
  return pool->count > 0 ? pool : nullptr;
}

Pool *pool_cache_open_rules(std::string_view provider, LOCKMODE mode, MeterTables *tables) {
  return open_pool(provider, false, mode, tables);
}

// Whether to load the keys of a provider because one that was not loaded is asked for so often. To load takes so much
// longer than to find one key that in between two changes it may never pay.
static bool is_often_missed(uint32 hash) {
  static constexpr uint8 kOften = 16;
  uint8 *missed = &cache.misses[hash % lengthof(cache.misses)];
  if (++*missed < kOften) return false;
  *missed = 0;
  return true;
}

// Finds a key that is not loaded. False if there is none.
static bool find_missed(const keypool::KeyId &id, KeyReference *key, bool *loaded) {
  auto *found = static_cast<FoundKey *>(palloc(sizeof(FoundKey)));
  if (!find_key(id, found)) return false;
  uint32 hash = hash_of(found->provider);
  Pool *pool = provide_pool(found->provider, hash, is_often_missed(hash), loaded);
  *key = {&found->place, found->account, &found->limits, pool};
  return true;
}

bool pool_cache_open_key(const keypool::KeyId &id, LOCKMODE mode, KeyReference *key, MeterTables *tables) {
  for (;;) {
    take_in_changes();
    bool loaded = false;
    auto *cached = static_cast<MemberEntry *>(hash_search(cache.members_by_id, &id, HASH_FIND, nullptr));
    if (cached != nullptr && cached->member.kind == PoolMember::kKey) {
      Pool *pool = cached->pool;
      note_use(pool);
      PoolKey *known = &pool->keys[cached->member.index];
      *key = {&known->place, known->account, known->limits, pool};
    } else if (!find_missed(id, key, &loaded)) {
      return false;
    }
    if (open_tables(*key->pool, loaded, mode, tables)) return true;
  }
}
