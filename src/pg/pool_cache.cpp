// pool_cache.cpp - what this process knows of the providers' keys.
#include "pg/pool_cache.h"

#include <algorithm>

#include "core/provider_name.h"
#include "pg/arguments.h"
#include "pg/clock.h"
#include "pg/door.h"
#include "pg/relations.h"
#include "pg/report.h"
#include "pg/state_store.h"

struct ProviderEntry {
  char provider[keypool::kMaxProviderBytes + 1];
  Pool *pool;
};

struct KeyEntry {
  keypool::KeyId id;
  Pool *pool;
  int index;
};

static MemoryContext cache_context;
static HTAB *pools_by_provider;
static HTAB *keys_by_id;
static Pool *last_pool;  // that was asked for; most calls of a process ask for the same
static uint64 cached_version = 0;

static HTAB *make_table(const char *name, Size key_size, Size entry_size, int flags) {
  HASHCTL control = {};
  control.keysize = key_size;
  control.entrysize = entry_size;
  control.hcxt = cache_context;
  return hash_create(name, 64, &control, HASH_ELEM | HASH_CONTEXT | flags);
}

static void make_tables(void) {
  pools_by_provider = make_table("keypool pools", keypool::kMaxProviderBytes + 1, sizeof(ProviderEntry), HASH_STRINGS);
  keys_by_id = make_table("keypool keys", sizeof(keypool::KeyId), sizeof(KeyEntry), HASH_BLOBS);
}

void pool_cache_init(void) {
  cache_context = AllocSetContextCreate(CacheMemoryContext, "keypool cache", ALLOCSET_DEFAULT_SIZES);
}

void pool_cache_retry(int attempt) {
  static constexpr int kMaxAttempts = 10;  // a row moves seldom, and hardly ever twice
  CHECK_FOR_INTERRUPTS();
  if (attempt >= kMaxAttempts)
    ereport(ERROR, errcode(ERRCODE_DATA_CORRUPTED),
            errmsg("keypool.key_state holds a row that this keypool cannot read"),
            errhint("If the extension was upgraded, connect anew; if the table was altered, undo that."));
  cached_version = 0;
}

// Drops the cache if it is not of this version.
static void match_version(uint64 version) {
  if (cached_version == version) return;
  cached_version = 0;
  last_pool = nullptr;
  MemoryContextReset(cache_context);  // with the pools' own contexts, which are its children
  make_tables();
  cached_version = version;
}

static bool is_current(void) { return cached_version == relations_version(); }

// One row of keypool.provider_keys on its way into a pool.
struct LoadedKey {
  keypool::Candidate candidate;
  PoolKey key;
};

// Copies a value into the current context, as a text with a plain header.
static text *copy_text(Datum value) {
  text *given = DatumGetTextPP(value);
  std::string_view view = text_view(given);
  return cstring_to_text_with_len(view.data(), static_cast<int>(view.size()));
}

static LoadedKey load_key(HeapTuple row, TupleDesc columns) {
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
  key->label = is_null(kKeysLabel) ? nullptr : copy_text(value(kKeysLabel));
  std::string_view stored = text_view(DatumGetTextPP(value(kKeysValue)));
  keypool::ParseStored(stored, static_cast<uint8_t *>(palloc(std::max<size_t>(stored.size(), 1))), &key->secret);
  return loaded;
}

// Reads a provider's rows. Keys without a state row cannot be used and are left out.
static LoadedKey *load_keys(std::string_view provider, int *count) {
  Relation keys = table_open(relations().provider_keys, AccessShareLock);
  Relation state = state_store_open(AccessShareLock);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  int capacity = 16;
  auto *loaded = static_cast<LoadedKey *>(palloc(capacity * sizeof(LoadedKey)));
  ScanKeyData condition;
  text *wanted = cstring_to_text_with_len(provider.data(), static_cast<int>(provider.size()));
  ScanKeyInit(&condition, kKeysProvider, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(wanted));
  SysScanDesc scan = systable_beginscan(keys, relations().provider_keys_by_order, true, snapshot, 1, &condition);
  *count = 0;
  while (HeapTuple row = systable_getnext(scan)) {
    CHECK_FOR_INTERRUPTS();
    if (*count == capacity) {
      capacity *= 2;
      loaded = static_cast<LoadedKey *>(repalloc_huge(loaded, capacity * sizeof(LoadedKey)));
    }
    LoadedKey *next = &loaded[*count];
    *next = load_key(row, RelationGetDescr(keys));
    if (state_store_find(state, next->candidate.id, snapshot, &next->key.address))
      ++*count;
    else
      ereport(WARNING, errmsg("keypool: a key of this provider has no state and is not used"),
              errhint("Run keypool_heal()."));
  }
  systable_endscan(scan);
  UnregisterSnapshot(snapshot);
  state_store_close(state, AccessShareLock);
  table_close(keys, AccessShareLock);
  return loaded;
}

static Pool *make_pool(std::string_view provider, LoadedKey *loaded, int count) {
  auto *pool = static_cast<Pool *>(palloc0(sizeof(Pool)));
  pool->provider = provider;
  pool->count = count;
  std::partition(loaded, loaded + count, [](const LoadedKey &key) { return key.key.active; });
  Size slots = std::max(count, 1);
  pool->keys = static_cast<PoolKey *>(palloc_extended(slots * sizeof(PoolKey), MCXT_ALLOC_HUGE));
  pool->candidates =
      static_cast<keypool::Candidate *>(palloc_extended(slots * sizeof(keypool::Candidate), MCXT_ALLOC_HUGE));
  for (int i = 0; i < count; ++i) {
    pool->keys[i] = loaded[i].key;
    pool->candidates[i] = loaded[i].candidate;
    pool->active_count += loaded[i].key.active;
  }
  auto *order = static_cast<uint32_t *>(palloc_extended(slots * sizeof(uint32_t), MCXT_ALLOC_HUGE));
  pool->order = keypool::SelectionOrder(pool->candidates, order, static_cast<uint32_t>(pool->active_count));
  return pool;
}

// Enters a complete pool into the tables; from here on it belongs to the cache. First of all that, since an entry may
// fail for want of memory; and its name last, so that a pool that is found is whole.
static void enter_pool(Pool *pool) {
  MemoryContextSetParent(pool->context, cache_context);
  for (int i = 0; i < pool->count; ++i) {
    auto *by_id = static_cast<KeyEntry *>(hash_search(keys_by_id, &pool->candidates[i].id, HASH_ENTER, nullptr));
    by_id->pool = pool;
    by_id->index = i;
  }
  char name[keypool::kMaxProviderBytes + 1] = {};
  memcpy(name, pool->provider.data(), pool->provider.size());
  auto *by_name = static_cast<ProviderEntry *>(hash_search(pools_by_provider, name, HASH_ENTER, nullptr));
  by_name->pool = pool;
}

// Loads a provider; null if it has no keys. Nothing is entered if something changed meanwhile: the caller looks at the
// version again. An error on the way frees what was loaded with the caller's context.
static Pool *load_pool(std::string_view provider) {
  MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "keypool pool", ALLOCSET_SMALL_SIZES);
  MemoryContext before = MemoryContextSwitchTo(context);
  int count;
  LoadedKey *loaded = load_keys(provider, &count);
  Pool *pool = nullptr;
  if (count > 0 && is_current()) {
    auto *name = static_cast<char *>(palloc(provider.size() + 1));
    memcpy(name, provider.data(), provider.size());
    pool = make_pool({name, provider.size()}, loaded, count);
    pool->context = context;
    pfree(loaded);
    enter_pool(pool);
  }
  MemoryContextSwitchTo(before);
  if (pool == nullptr) MemoryContextDelete(context);
  return pool;
}

static Pool *cached_pool(std::string_view provider) {
  if (last_pool != nullptr && last_pool->provider == provider) return last_pool;
  char name[keypool::kMaxProviderBytes + 1] = {};
  memcpy(name, provider.data(), provider.size());
  auto *entry = static_cast<ProviderEntry *>(hash_search(pools_by_provider, name, HASH_FIND, nullptr));
  if (entry != nullptr) last_pool = entry->pool;
  return entry ? entry->pool : nullptr;
}

static KeyReference cached_key(const keypool::KeyId &id) {
  auto *entry = static_cast<KeyEntry *>(hash_search(keys_by_id, &id, HASH_FIND, nullptr));
  if (entry == nullptr) return {};
  return {entry->pool, &entry->pool->keys[entry->index]};
}

Pool *pool_cache_open_provider(std::string_view provider, LOCKMODE mode, Relation *state) {
  for (;;) {
    match_version(relations_version());
    Pool *pool = cached_pool(provider);
    if (pool == nullptr) pool = load_pool(provider);
    *state = state_store_open(mode);
    if (is_current()) return pool;
    state_store_close(*state, mode);
  }
}

// The provider of a key, in the current context; empty if there is no such key, or if somebody disabled the trigger
// that checks the name.
static std::string_view find_provider(const keypool::KeyId &id) {
  Relation keys = table_open(relations().provider_keys, AccessShareLock);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  ScanKeyData condition;
  ScanKeyInit(&condition, kKeysId, BTEqualStrategyNumber, F_UUID_EQ, PointerGetDatum(id.bytes));
  SysScanDesc scan = systable_beginscan(keys, relations().provider_keys_by_id, true, snapshot, 1, &condition);
  std::string_view provider;
  if (HeapTuple row = systable_getnext(scan)) {
    bool is_null;
    provider = text_view(copy_text(heap_getattr(row, kKeysProvider, RelationGetDescr(keys), &is_null)));
  }
  systable_endscan(scan);
  UnregisterSnapshot(snapshot);
  table_close(keys, AccessShareLock);
  bool valid = call_core([&] { return keypool::CheckProviderName(provider); }).ok();
  return valid ? provider : std::string_view();
}

KeyReference pool_cache_open_key(const keypool::KeyId &id, LOCKMODE mode, Relation *state) {
  for (;;) {
    match_version(relations_version());
    KeyReference found = cached_key(id);
    if (found.key == nullptr) {
      std::string_view provider = find_provider(id);
      // A pool that is known and lacks the key would lack it again.
      if (!provider.empty() && cached_pool(provider) == nullptr) load_pool(provider);
      found = cached_key(id);
    }
    *state = state_store_open(mode);
    if (is_current()) {
      if (found.key != nullptr) return found;
      state_store_close(*state, mode);
      report_unknown_key();
    }
    state_store_close(*state, mode);
  }
}

Pool *pool_of_returning_keys(const Pool &pool, keypool::TimeUs now) {
  auto *returning = static_cast<LoadedKey *>(palloc(std::max(pool.count, 1) * sizeof(LoadedKey)));
  int count = 0;
  for (int i = pool.active_count; i < pool.count; ++i) {
    keypool::TimeUs until = pool.keys[i].inactive_until;
    if (until == 0 || until > now) continue;
    returning[count] = {pool.candidates[i], pool.keys[i]};
    returning[count++].key.active = true;
  }
  return count == 0 ? nullptr : make_pool(pool.provider, returning, count);
}
