// key_lookup.cpp - finding one key by its id in the tables, whatever the cache holds.
#include "pg/pool/key_lookup.h"

#include "core/provider_name.h"
#include "pg/catalog/provider_changes.h"
#include "pg/catalog/relations.h"
#include "pg/server/arguments.h"
#include "pg/server/core_call.h"
#include "pg/server/report.h"
#include "pg/state/state_store.h"

// Raises KP404 also if somebody disabled the trigger that checks the name.
static std::string_view find_provider(Relation keys, const keypool::KeyId &id, Snapshot snapshot) {
  ScanKeyData condition;
  ScanKeyInit(&condition, kKeysId, BTEqualStrategyNumber, F_UUID_EQ, PointerGetDatum(id.bytes));
  SysScanDesc scan = systable_beginscan(keys, relations().provider_keys_by_id, true, snapshot, 1, &condition);
  std::string_view provider;
  if (HeapTuple row = systable_getnext(scan)) {
    bool is_null;
    provider = text_view(DatumGetTextPCopy(heap_getattr(row, kKeysProvider, RelationGetDescr(keys), &is_null)));
  }
  systable_endscan(scan);
  if (!call_core([&] { return keypool::CheckProviderName(provider); }).ok()) report_unknown_key();
  return provider;
}

static bool find_address(Relation state, const keypool::KeyId &id, Snapshot snapshot, ItemPointer address) {
  StateFinder finder = state_finder_begin(state, snapshot);
  bool found = state_finder_find(finder, id, address);
  state_finder_end(&finder);
  return found;
}

void warn_of_missing_state(void) {
  ereport(WARNING, errmsg("keypool: a key of this provider has no state and is not used"),
          errhint("Run keypool_heal()."));
}

KeyReference find_key(const keypool::KeyId &id) {
  // A snapshot from before the locks would not see the rows of a table that is being rewritten.
  Relation keys = table_open(relations().provider_keys, AccessShareLock);
  Relation state = state_store_open(AccessShareLock);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  KeyReference found = {id, {}, 0, find_provider(keys, id, snapshot)};
  bool has_state = find_address(state, id, snapshot, &found.address);
  UnregisterSnapshot(snapshot);
  state_store_close(state, AccessShareLock);
  table_close(keys, AccessShareLock);
  if (!has_state)
    ereport(ERROR, errcode(ERRCODE_KEYPOOL_NOT_FOUND), errmsg("key has no state"), errhint("Run keypool_heal()."));
  found.hash = provider_change_hash(found.provider);
  return found;
}

std::string_view find_provider_of_key(const keypool::KeyId &id) {
  Relation keys = table_open(relations().provider_keys, AccessShareLock);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  std::string_view provider = find_provider(keys, id, snapshot);
  UnregisterSnapshot(snapshot);
  table_close(keys, AccessShareLock);
  return provider;
}
