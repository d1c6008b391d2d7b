// key_lookup.cpp - finding one key by its id in the tables, whatever the cache holds.
#include "pg/pool/key_lookup.h"

#include "core/provider_name.h"
#include "pg/catalog/relations.h"
#include "pg/pool/limit_columns.h"
#include "pg/server/arguments.h"
#include "pg/server/core_call.h"
#include "pg/server/report.h"

static std::string_view copied_text(Datum value, bool is_null) {
  return is_null ? std::string_view() : text_view(DatumGetTextPCopy(value));
}

static void read_row(HeapTuple row, TupleDesc columns, FoundKey *key) {
  Datum values[kKeysColumns];
  bool nulls[kKeysColumns];
  read_provider_keys_row(row, columns, values, nulls);
  key->provider = copied_text(values[kKeysProvider - 1], nulls[kKeysProvider - 1]);
  key->account = copied_text(values[kKeysAccount - 1], nulls[kKeysAccount - 1]);
  key->limits = limits_of_row(LimitsOf::kKeys, values, nulls);
}

// False also if somebody disabled the trigger that checks the name.
static bool find_row(Relation keys, const keypool::KeyId &id, Snapshot snapshot, FoundKey *key) {
  ScanKeyData condition;
  ScanKeyInit(&condition, kKeysId, BTEqualStrategyNumber, F_UUID_EQ, PointerGetDatum(id.bytes));
  SysScanDesc scan = systable_beginscan(keys, relations().provider_keys_by_id, true, snapshot, 1, &condition);
  *key = {};
  if (HeapTuple row = systable_getnext(scan)) read_row(row, RelationGetDescr(keys), key);
  systable_endscan(scan);
  return call_core([&] { return keypool::CheckProviderName(key->provider); }).ok();
}

static bool find_place(Relation meters, const keypool::KeyId &id, Snapshot snapshot, MeterPlace *place) {
  MeterFinder finder = meter_finder_begin(MeterKind::kKey, meters, snapshot);
  *place = {id, {}, InvalidBuffer};
  bool found = meter_finder_find(finder, id, &place->address);
  meter_finder_end(&finder);
  return found;
}

void warn_of_missing_meter(void) {
  ereport(WARNING, errmsg("keypool: a key of this provider has no meter and is not used"),
          errhint("Run keypool_heal()."));
}

bool find_key(const keypool::KeyId &id, FoundKey *key) {
  // A snapshot from before the locks would not see the rows of a table that is being rewritten.
  Relation keys = table_open(relations().provider_keys, AccessShareLock);
  Relation meters = meter_table_open(MeterKind::kKey, AccessShareLock);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  bool found = find_row(keys, id, snapshot, key);
  bool has_meter = found && find_place(meters, id, snapshot, &key->place);
  UnregisterSnapshot(snapshot);
  table_close(meters, AccessShareLock);
  table_close(keys, AccessShareLock);
  if (found && !has_meter)
    ereport(ERROR, errcode(ERRCODE_KEYPOOL_NOT_FOUND), errmsg("key has no meter"), errhint("Run keypool_heal()."));
  return found;
}

std::string_view find_provider_of_key(const keypool::KeyId &id) {
  Relation keys = table_open(relations().provider_keys, AccessShareLock);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  FoundKey key;
  bool found = find_row(keys, id, snapshot, &key);
  UnregisterSnapshot(snapshot);
  table_close(keys, AccessShareLock);
  if (!found) report_unknown_key();
  return key.provider;
}
