// pool_load.cpp - reading a provider's keys into a pool.
#include "pg/pool/pool_load.h"

#include "pg/catalog/relations.h"
#include "pg/pool/key_lookup.h"
#include "pg/pool/limit_columns.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/server/key_ids.h"

using keypool::TimeUs;

// One row, taken apart.
struct KeyRow {
  Datum values[kKeysColumns];
  bool nulls[kKeysColumns];

  bool has(AttrNumber column) const { return !nulls[column - 1]; }
  Datum value(AttrNumber column) const { return values[column - 1]; }
  TimeUs time(AttrNumber column) const {
    return has(column) ? clock_from_timestamptz(DatumGetTimestampTz(value(column))) : 0;
  }
  ArrayType *array(AttrNumber column) const { return has(column) ? DatumGetArrayTypeP(value(column)) : nullptr; }
};

static void *keep(MemoryContext context, const void *bytes, Size size) {
  return memcpy(MemoryContextAlloc(context, size), bytes, size);
}

static varlena *keep_value(MemoryContext context, const KeyRow &row, AttrNumber column) {
  if (!row.has(column)) return nullptr;
  varlena *value = PG_DETOAST_DATUM(row.value(column));
  return static_cast<varlena *>(keep(context, value, VARSIZE(value)));
}

// Neighbours mostly have the same limits, models and account: those are kept once.
static const keypool::Limits *keep_limits(MemoryContext context, const keypool::Limits &limits, const PoolKey *before) {
  if (before != nullptr && limits == *before->limits) return before->limits;
  return static_cast<keypool::Limits *>(keep(context, &limits, sizeof(limits)));
}

static ModelRule keep_models(MemoryContext context, const ModelRule &models, const PoolKey *before) {
  if (before != nullptr && model_rule_equal(models, before->models)) return before->models;
  auto copy = [&](ArrayType *array) {
    return array == nullptr ? nullptr : static_cast<ArrayType *>(keep(context, array, VARSIZE(array)));
  };
  return {copy(models.models), copy(models.except_models)};
}

static std::string_view keep_account(MemoryContext context, const KeyRow &row, const PoolKey *before) {
  if (!row.has(kKeysAccount)) return {};
  std::string_view account = text_view(DatumGetTextPP(row.value(kKeysAccount)));
  if (before != nullptr && account == before->account) return before->account;
  return {static_cast<char *>(keep(context, account.data(), account.size())), account.size()};
}

static void keep_secret(MemoryContext context, const KeyRow &row, keypool::StoredSecret *secret) {
  std::string_view stored = text_view(DatumGetTextPP(row.value(kKeysValue)));
  auto *bytes = static_cast<uint8_t *>(palloc(stored.size() + 1));
  keypool::ParseStored(stored, bytes, secret);
  secret->bytes = static_cast<uint8_t *>(keep(context, bytes, secret->size()));
}

static PoolKey read_key(MemoryContext context, const KeyRow &row, const PoolKey *before) {
  PoolKey key = {};
  key.place.id = key_id_from_datum(row.value(kKeysId));
  key.active = DatumGetBool(row.value(kKeysIsActive));
  key.priority = DatumGetInt32(row.value(kKeysPriority));
  key.weight = DatumGetInt32(row.value(kKeysWeight));
  key.inactive_until = row.time(kKeysInactiveUntil);
  key.expires_at = row.time(kKeysExpiresAt);
  key.limits = keep_limits(context, limits_of_row(LimitsOf::kKeys, row.values, row.nulls), before);
  key.models = keep_models(context, {row.array(kKeysModels), row.array(kKeysExceptModels)}, before);
  key.account = keep_account(context, row, before);
  key.label = reinterpret_cast<text *>(keep_value(context, row, kKeysLabel));
  key.attributes = keep_value(context, row, kKeysAttributes);
  keep_secret(context, row, &key.secret);
  if (key.secret.form == keypool::SecretForm::kNone) key.active = false, key.inactive_until = 0;  // stays off
  return key;
}

// Keys that have been read, and where they and what they point to lie.
struct Loading {
  MemoryContext context;
  MemoryContext of_row;  // for what is needed of one row only
  PoolKey *keys;
  int count;
  int capacity;
};

static void make_room(Loading *loading) {
  if (loading->count < loading->capacity) return;
  loading->capacity = Max(16, loading->capacity * 2);
  Size size = loading->capacity * sizeof(PoolKey);
  loading->keys = static_cast<PoolKey *>(loading->keys == nullptr ? MemoryContextAllocHuge(loading->context, size)
                                                                  : repalloc_huge(loading->keys, size));
}

static void add_key(HeapTuple tuple, TupleDesc columns, const MeterFinder &finder, Loading *loading) {
  make_room(loading);
  MemoryContext before = MemoryContextSwitchTo(loading->of_row);
  KeyRow row;
  read_provider_keys_row(tuple, columns, row.values, row.nulls);
  PoolKey *key = &loading->keys[loading->count];
  *key = read_key(loading->context, row, loading->count > 0 ? key - 1 : nullptr);
  MemoryContextSwitchTo(before);
  MemoryContextReset(loading->of_row);
  if (meter_finder_find(finder, key->place.id, &key->place.address))
    ++loading->count;
  else
    warn_of_missing_meter();
}

void load_pool_keys(std::string_view provider, MemoryContext context, PoolKey **keys, int *count) {
  Loading loading = {context, AllocSetContextCreate(CurrentMemoryContext, "keypool row", ALLOCSET_DEFAULT_SIZES),
                     nullptr, 0, 0};
  Relation table = table_open(relations().provider_keys, AccessShareLock);
  Relation meters = meter_table_open(MeterKind::kKey, AccessShareLock);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  ScanKeyData condition;
  text *wanted = cstring_to_text_with_len(provider.data(), static_cast<int>(provider.size()));
  ScanKeyInit(&condition, kKeysProvider, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(wanted));
  SysScanDesc scan = systable_beginscan(table, relations().provider_keys_by_order, true, snapshot, 1, &condition);
  MeterFinder finder = meter_finder_begin(MeterKind::kKey, meters, snapshot);
  while (HeapTuple tuple = systable_getnext(scan)) {
    CHECK_FOR_INTERRUPTS();
    add_key(tuple, RelationGetDescr(table), finder, &loading);
  }
  meter_finder_end(&finder);
  systable_endscan(scan);
  UnregisterSnapshot(snapshot);
  table_close(meters, AccessShareLock);
  table_close(table, AccessShareLock);
  MemoryContextDelete(loading.of_row);
  *keys = loading.keys;
  *count = loading.count;
}

Size pool_key_size(void) { return sizeof(PoolKey) + sizeof(keypool::Candidate) + sizeof(keypool::OrderPlace) + 128; }
