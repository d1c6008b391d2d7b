// pool_cache.cpp - what this process knows of the providers' keys.
#include "pg/pool/pool_cache.h"

#include <algorithm>
#include <utility>

#include "pg/catalog/provider_changes.h"
#include "pg/catalog/relations.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/server/report.h"
#include "pg/server/settings.h"
#include "pg/state/state_store.h"

// All providers with one hash.
struct HashEntry {
  uint32 hash;
  Pool *first;
};

struct KeyEntry {
  keypool::KeyId id;
  Pool *pool;
  int index;
};

static MemoryContext cache_context;  // of the tables
static MemoryContext pools_context;  // a child of it, in which each pool is an allocation of the system's
static HTAB *pools_by_hash;
static HTAB *keys_by_id;
static dlist_head pools_by_use;
static Pool *last_pool;            // that was asked for; most calls of a process ask for the same
static uint64 cached_version = 0;  // relations_version that the cache is of; 0: it is of no use
static bool outgrown = false;      // the tables, which never shrink, take more than they should
static uint8 misses[64];           // keys of providers with such hashes that were not cached, since the last change

static HTAB *make_table(const char *name, Size key_size, Size entry_size) {
  HASHCTL control = {};
  control.keysize = key_size;
  control.entrysize = entry_size;
  control.hcxt = cache_context;
  return hash_create(name, 64, &control, HASH_ELEM | HASH_CONTEXT | HASH_BLOBS);
}

void pool_cache_init(void) {
  cache_context = AllocSetContextCreate(CacheMemoryContext, "keypool cache", ALLOCSET_SMALL_SIZES);
}

static void drop_all(void) {
  cached_version = 0;
  last_pool = nullptr;
  dlist_init(&pools_by_use);
  MemoryContextReset(cache_context);
  pools_by_hash = make_table("keypool pools", sizeof(uint32), sizeof(HashEntry));
  keys_by_id = make_table("keypool keys", sizeof(keypool::KeyId), sizeof(KeyEntry));
  // Blocks this small hold no pool, so each has one of its own size.
  pools_context = AllocSetContextCreate(cache_context, "keypool pools", 0, 1024, 1024);
}

static void drop_pool(Pool *pool) {
  if (last_pool == pool) last_pool = nullptr;
  for (int i = 0; i < pool->count; ++i) {
    const keypool::KeyId &id = pool->candidates[i].id;
    auto *entry = static_cast<KeyEntry *>(hash_search(keys_by_id, &id, HASH_FIND, nullptr));
    if (entry != nullptr && entry->pool == pool) hash_search(keys_by_id, &id, HASH_REMOVE, nullptr);
  }
  auto *entry = static_cast<HashEntry *>(hash_search(pools_by_hash, &pool->hash, HASH_FIND, nullptr));
  Pool **link = &entry->first;
  while (*link != pool) link = &(*link)->next_with_hash;
  *link = pool->next_with_hash;
  if (entry->first == nullptr) hash_search(pools_by_hash, &pool->hash, HASH_REMOVE, nullptr);
  dlist_delete(pool);
  pfree(pool);
}

// Takes in what was announced, and drops what is no longer true.
static void take_in_changes(void) {
  uint64 version = relations_version();
  const ProviderChanges &changes = take_provider_changes();
  if (cached_version != version || changes.all || outgrown) {
    drop_all();
    outgrown = false;
    memset(misses, 0, sizeof(misses));
    cached_version = version;
    return;
  }
  for (int i = 0; i < changes.count; ++i) {
    misses[changes.hashes[i] % lengthof(misses)] = 0;
    while (auto *entry = static_cast<HashEntry *>(hash_search(pools_by_hash, &changes.hashes[i], HASH_FIND, nullptr)))
      drop_pool(entry->first);
  }
}

// Whether the addresses that were cached, or looked up since the changes were taken in, still hold.
static bool has_addresses(void) { return cached_version == relations_version() && cached_version != 0; }

// Whether what is cached of the providers with this hash is still true.
static bool is_current(uint32 hash) { return has_addresses() && !provider_change_came(hash); }

void pool_cache_retry(uint32 hash, int attempt) {
  static constexpr int kMaxAttempts = 10;  // a row moves seldom, and hardly ever twice
  CHECK_FOR_INTERRUPTS();
  if (attempt >= kMaxAttempts)
    ereport(ERROR, errcode(ERRCODE_DATA_CORRUPTED),
            errmsg("keypool.key_state holds a row that this keypool cannot read"),
            errhint("If the extension was updated, reconnect; if the table was altered, undo that."));
  assume_provider_change(hash);
}

// One row of keypool.provider_keys on its way into a pool.
struct LoadedKey {
  keypool::Candidate candidate;
  PoolKey key;
  Size label_at;   // in the texts of the pool; 0: none
  Size secret_at;  // likewise
};

// Texts of a pool that is being loaded, one behind the other.
struct Texts {
  char *bytes;
  Size size;
  Size capacity;
};

// Makes room at a place; returns it.
static Size add_text(Texts *texts, Size at, Size size) {
  if (at + size > texts->capacity) {
    texts->capacity = Max(2 * texts->capacity, at + size);
    texts->bytes = static_cast<char *>(repalloc_huge(texts->bytes, texts->capacity));
  }
  texts->size = at + size;
  return at;
}

static Size add_label(Texts *texts, Datum value) {
  std::string_view label = text_view(DatumGetTextPP(value));
  Size at = add_text(texts, INTALIGN(texts->size), VARHDRSZ + label.size());
  SET_VARSIZE(texts->bytes + at, VARHDRSZ + label.size());
  memcpy(texts->bytes + at + VARHDRSZ, label.data(), label.size());
  return at;
}

static Size add_secret(Texts *texts, Datum value, keypool::StoredSecret *secret) {
  std::string_view stored = text_view(DatumGetTextPP(value));
  Size at = add_text(texts, texts->size, stored.size());
  keypool::ParseStored(stored, reinterpret_cast<uint8_t *>(texts->bytes + at), secret);
  texts->size = at + secret->size();
  return at;
}

static LoadedKey load_key(HeapTuple row, TupleDesc columns, Texts *texts) {
  Datum values[kKeysColumns];
  bool nulls[kKeysColumns];
  read_provider_keys_row(row, columns, values, nulls);
  auto value = [&](AttrNumber column) { return values[column - 1]; };
  auto is_null = [&](AttrNumber column) { return nulls[column - 1]; };

  LoadedKey loaded = {};
  memcpy(loaded.candidate.id.bytes, DatumGetUUIDP(value(kKeysId))->data, UUID_LEN);
  loaded.candidate.priority = DatumGetInt32(value(kKeysPriority));
  PoolKey *key = &loaded.key;
  key->active = DatumGetBool(value(kKeysIsActive));
  key->limits.max_rpm = is_null(kKeysMaxRpm) ? 0 : DatumGetInt64(value(kKeysMaxRpm));
  key->limits.max_tpm = is_null(kKeysMaxTpm) ? 0 : DatumGetInt64(value(kKeysMaxTpm));
  if (!is_null(kKeysInactiveUntil))
    key->inactive_until = clock_from_timestamptz(DatumGetTimestampTz(value(kKeysInactiveUntil)));
  if (!is_null(kKeysLabel)) loaded.label_at = add_label(texts, value(kKeysLabel));
  loaded.secret_at = add_secret(texts, value(kKeysValue), &key->secret);
  return loaded;
}

// Reads a provider's rows. Keys without a state row cannot be used and are left out.
static LoadedKey *load_keys(std::string_view provider, int *count, Texts *texts) {
  Relation keys = table_open(relations().provider_keys, AccessShareLock);
  Relation state = state_store_open(AccessShareLock);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  int capacity = 16;
  auto *loaded = static_cast<LoadedKey *>(palloc(capacity * sizeof(LoadedKey)));
  ScanKeyData condition;
  text *wanted = cstring_to_text_with_len(provider.data(), static_cast<int>(provider.size()));
  ScanKeyInit(&condition, kKeysProvider, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(wanted));
  SysScanDesc scan = systable_beginscan(keys, relations().provider_keys_by_order, true, snapshot, 1, &condition);
  StateFinder finder = state_finder_begin(state, snapshot);
  *count = 0;
  while (HeapTuple row = systable_getnext(scan)) {
    CHECK_FOR_INTERRUPTS();
    if (*count == capacity) {
      capacity *= 2;
      loaded = static_cast<LoadedKey *>(repalloc_huge(loaded, capacity * sizeof(LoadedKey)));
    }
    LoadedKey *next = &loaded[*count];
    *next = load_key(row, RelationGetDescr(keys), texts);
    if (state_finder_find(finder, next->candidate.id, &next->key.address))
      ++*count;
    else
      warn_of_missing_state();
  }
  state_finder_end(&finder);
  systable_endscan(scan);
  UnregisterSnapshot(snapshot);
  state_store_close(state, AccessShareLock);
  table_close(keys, AccessShareLock);
  return loaded;
}

static constexpr Size kSizeOfKey =
    sizeof(PoolKey) + sizeof(keypool::Candidate) + sizeof(keypool::OrderPlace) + sizeof(uint32);

Size pool_cache_need(int64 keys, int64 text_bytes) {
  Size entry = MAXALIGN(sizeof(HASHELEMENT)) + MAXALIGN(sizeof(KeyEntry)) + sizeof(HASHELEMENT *);
  Size other = 64 * 1024;  // the tables when they are empty, and names
  // A table takes memory in steps that double.
  return other + keys * (kSizeOfKey + VARHDRSZ + 2 * entry) + text_bytes;
}

// Makes a pool of keys, with `texts` (if any) and the provider's name behind it, in one allocation.
static Pool *make_pool(std::string_view provider, LoadedKey *loaded, int count, const Texts &texts,
                       MemoryContext context) {
  std::partition(loaded, loaded + count, [](const LoadedKey &key) { return key.key.active; });
  Size slots = count;
  Size size = MAXALIGN(sizeof(Pool)) + slots * kSizeOfKey + MAXALIGN(texts.size) + provider.size();
  auto *space = static_cast<char *>(MemoryContextAllocExtended(context, size, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO));
  auto take = [&](Size bytes) { return std::exchange(space, space + bytes); };
  auto *pool = reinterpret_cast<Pool *>(take(MAXALIGN(sizeof(Pool))));
  pool->keys = reinterpret_cast<PoolKey *>(take(slots * sizeof(PoolKey)));
  pool->candidates = reinterpret_cast<keypool::Candidate *>(take(slots * sizeof(keypool::Candidate)));
  auto *places = reinterpret_cast<keypool::OrderPlace *>(take(slots * sizeof(keypool::OrderPlace)));
  char *copied_texts = take(MAXALIGN(texts.size));
  auto *position = reinterpret_cast<uint32_t *>(take(slots * sizeof(uint32)));
  if (texts.size > 0) memcpy(copied_texts, texts.bytes, texts.size);
  memcpy(space, provider.data(), provider.size());
  pool->provider = {space, provider.size()};
  pool->count = count;
  for (int i = 0; i < count; ++i) {
    PoolKey *key = &pool->keys[i];
    *key = loaded[i].key;
    pool->candidates[i] = loaded[i].candidate;
    pool->active_count += key->active;
    if (texts.size == 0) continue;
    if (loaded[i].label_at != 0) key->label = reinterpret_cast<text *>(copied_texts + loaded[i].label_at);
    key->secret.bytes = reinterpret_cast<uint8_t *>(copied_texts + loaded[i].secret_at);
  }
  pool->order = keypool::SelectionOrder(pool->candidates, places, position, static_cast<uint32_t>(pool->active_count));
  return pool;
}

// Enters a complete pool into the tables. While this lasts the cache is of no use, so that what an error leaves half
// done is dropped.
static void enter_pool(Pool *pool, uint32 hash) {
  uint64 version = std::exchange(cached_version, 0);
  pool->hash = hash;
  pool->cached = true;
  dlist_push_head(&pools_by_use, pool);
  bool found;
  auto *by_hash = static_cast<HashEntry *>(hash_search(pools_by_hash, &hash, HASH_ENTER, &found));
  pool->next_with_hash = found ? by_hash->first : nullptr;
  by_hash->first = pool;
  for (int i = 0; i < pool->count; ++i) {
    auto *by_id = static_cast<KeyEntry *>(hash_search(keys_by_id, &pool->candidates[i].id, HASH_ENTER, nullptr));
    by_id->pool = pool;
    by_id->index = i;
  }
  cached_version = version;
}

// Drops the providers that were used least recently while the cache is larger than it may be, but the newest.
static void make_room(void) {
  Size limit = static_cast<Size>(keypool_cache_size) * 1024;
  auto is_full = [&] { return MemoryContextMemAllocated(cache_context, true) > limit; };
  while (is_full() && dlist_has_next(&pools_by_use, dlist_head_node(&pools_by_use)))
    drop_pool(static_cast<Pool *>(dlist_tail_node(&pools_by_use)));
  outgrown = is_full() && MemoryContextMemAllocated(pools_context, true) < limit / 2;
}

// Loads a provider; null if it has no keys, or if its addresses do not hold any more: the caller looks. A change that
// came meanwhile is taken in by the next call. An error on the way frees what was loaded with the caller's context.
static Pool *load_pool(std::string_view provider, uint32 hash) {
  MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "keypool loading", ALLOCSET_DEFAULT_SIZES);
  MemoryContext before = MemoryContextSwitchTo(context);
  int count;
  Texts texts = {static_cast<char *>(palloc(1024)), 1, 1024};  // not from 0, which means none
  LoadedKey *loaded = load_keys(provider, &count, &texts);
  Pool *pool = nullptr;
  if (count > 0 && has_addresses()) {
    pool = make_pool(provider, loaded, count, texts, pools_context);
    pool->fresh = true;
    enter_pool(pool, hash);
    make_room();
  }
  MemoryContextSwitchTo(before);
  MemoryContextDelete(context);
  return pool;
}

static uint32 hash_of(std::string_view provider) {
  return last_pool != nullptr && last_pool->provider == provider ? last_pool->hash : provider_change_hash(provider);
}

static Pool *cached_pool(std::string_view provider, uint32 hash) {
  if (last_pool != nullptr && last_pool->provider == provider) return last_pool;
  auto *entry = static_cast<HashEntry *>(hash_search(pools_by_hash, &hash, HASH_FIND, nullptr));
  for (Pool *pool = entry ? entry->first : nullptr; pool != nullptr; pool = pool->next_with_hash)
    if (pool->provider == provider) return pool;
  return nullptr;
}

static void note_use(Pool *pool) {
  last_pool = pool;
  dlist_move_head(&pools_by_use, pool);
}

int pool_cache_index(const Pool &pool, const keypool::KeyId &id) {
  auto *entry = static_cast<KeyEntry *>(hash_search(keys_by_id, &id, HASH_FIND, nullptr));
  return entry != nullptr && entry->pool == &pool ? entry->index : -1;
}

Pool *pool_cache_open_provider(std::string_view provider, LOCKMODE mode, Relation *state) {
  for (;;) {
    take_in_changes();
    uint32 hash = hash_of(provider);
    Pool *pool = cached_pool(provider, hash);
    bool cached = pool != nullptr;
    if (cached)
      pool->fresh = false;
    else
      pool = load_pool(provider, hash);
    *state = state_store_open(mode);
    if (cached ? is_current(hash) : has_addresses()) {
      if (pool != nullptr) note_use(pool);
      return pool;
    }
    state_store_close(*state, mode);
  }
}

// Loads the pool of a key that was not in the cache, if that was so too often to go on like this. To load takes so much
// longer than to find one key that in between two changes it may never pay.
static void load_if_often_missed(const KeyReference &key) {
  static constexpr uint8 kOften = 16;
  uint8 *missed = &misses[key.hash % lengthof(misses)];
  if (++*missed < kOften) return;
  *missed = 0;
  if (cached_pool(key.provider, key.hash) == nullptr) load_pool(key.provider, key.hash);
}

KeyReference pool_key_reference(const Pool &pool, int index) {
  return {pool.candidates[index].id, pool.keys[index].address, pool.hash, pool.provider};
}

KeyReference pool_cache_open_key(const keypool::KeyId &id, LOCKMODE mode, Relation *state) {
  for (;;) {
    take_in_changes();
    auto *cached = static_cast<KeyEntry *>(hash_search(keys_by_id, &id, HASH_FIND, nullptr));
    KeyReference key;
    if (cached != nullptr) {
      note_use(cached->pool);
      key = pool_key_reference(*cached->pool, cached->index);
    } else {
      key = find_key(id);
      load_if_often_missed(key);
    }
    *state = state_store_open(mode);
    if (cached != nullptr ? is_current(key.hash) : has_addresses()) return key;
    state_store_close(*state, mode);
  }
}

Pool *pool_of_returning_keys(const Pool &pool, keypool::TimeUs now) {
  auto *returning = static_cast<LoadedKey *>(palloc(Max(pool.count, 1) * sizeof(LoadedKey)));
  int count = 0;
  for (int i = pool.active_count; i < pool.count; ++i) {
    keypool::TimeUs until = pool.keys[i].inactive_until;
    if (until == 0 || until > now) continue;
    returning[count] = {pool.candidates[i], pool.keys[i], 0, 0};
    returning[count++].key.active = true;
  }
  if (count == 0) return nullptr;
  Pool *copy = make_pool(pool.provider, returning, count, {}, CurrentMemoryContext);
  copy->hash = pool.hash;
  copy->fresh = pool.fresh;
  return copy;
}
