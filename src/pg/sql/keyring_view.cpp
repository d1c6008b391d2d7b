// keyring_view.cpp - keypool_keyring: which master keys there are, and what they seal.
#include "pg/server/postgres_api.h"

#include "core/secret/envelope.h"
#include "pg/catalog/privileges.h"
#include "pg/catalog/relations.h"
#include "pg/secrets/master_keys.h"
#include "pg/server/arguments.h"

static void put_row(ReturnSetInfo *result, const char *id, bool primary, const keypool::MasterKey *key, int64 secrets) {
  Datum values[5] = {CStringGetTextDatum(id), BoolGetDatum(primary), CStringGetTextDatum(key ? "loaded" : "missing"),
                     Datum{0}, Int64GetDatum(secrets)};
  bool nulls[5] = {false, false, false, key == nullptr, false};
  if (key != nullptr) {
    char fingerprint[keypool::kFingerprintText + 1];
    keypool::Fingerprint(*key, fingerprint);
    values[3] = CStringGetTextDatum(fingerprint);
  }
  tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

// The sealed secrets of one master key.
struct SecretCount {
  char master_key_id[keypool::kMaxMasterKeyId + 1];
  int64 secrets;
};

// Counts the sealed secrets of each master key. Reads the table itself: a query would look at each value with a regular
// expression, or detoast it whole.
static HTAB *count_secrets(void) {
  HASHCTL control = {};
  control.keysize = sizeof(SecretCount::master_key_id);
  control.entrysize = sizeof(SecretCount);
  control.hcxt = CurrentMemoryContext;
  HTAB *counts = hash_create("keypool master keys", 16, &control, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
  MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "keypool value", ALLOCSET_SMALL_SIZES);
  Relation table = table_open(relations().provider_keys, AccessShareLock);
  SysScanDesc scan = systable_beginscan(table, InvalidOid, false, GetActiveSnapshot(), 0, nullptr);
  while (HeapTuple row = systable_getnext(scan)) {
    CHECK_FOR_INTERRUPTS();
    bool is_null;
    Datum value = heap_getattr(row, kKeysValue, RelationGetDescr(table), &is_null);
    if (is_null) continue;
    MemoryContext before = MemoryContextSwitchTo(context);
    text *beginning = DatumGetTextPSlice(value, 0, keypool::kSealedPrefixMax);
    std::string_view sealed_under = keypool::SealedUnder(text_view(beginning));
    char id[keypool::kMaxMasterKeyId + 1] = {};
    memcpy(id, sealed_under.data(), sealed_under.size());
    MemoryContextSwitchTo(before);
    MemoryContextReset(context);
    if (sealed_under.empty()) continue;
    bool found;
    auto *count = static_cast<SecretCount *>(hash_search(counts, id, HASH_ENTER, &found));
    count->secrets = found ? count->secrets + 1 : 1;
  }
  systable_endscan(scan);
  table_close(table, AccessShareLock);
  return counts;
}

// Takes the count of a master key out of the table; 0 if it has none.
static int64 take_count(HTAB *counts, const char *id) {
  auto *count = static_cast<SecretCount *>(hash_search(counts, id, HASH_REMOVE, nullptr));
  return count != nullptr ? count->secrets : 0;
}

static int compare_ids(const void *one, const void *other) {
  return strcmp(static_cast<const SecretCount *>(one)->master_key_id,
                static_cast<const SecretCount *>(other)->master_key_id);
}

// The rest of the table: master keys that seal secrets and are not in the keyring.
static void put_missing(ReturnSetInfo *result, HTAB *counts) {
  int ids = static_cast<int>(hash_get_num_entries(counts));
  auto *missing = static_cast<SecretCount *>(palloc(Max(ids, 1) * sizeof(SecretCount)));
  HASH_SEQ_STATUS all;
  hash_seq_init(&all, counts);
  for (int i = 0; auto *count = static_cast<SecretCount *>(hash_seq_search(&all)); ++i) missing[i] = *count;
  qsort(missing, ids, sizeof(SecretCount), compare_ids);
  for (int i = 0; i < ids; ++i) put_row(result, missing[i].master_key_id, false, nullptr, missing[i].secrets);
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_keyring);
Datum keypool_keyring(PG_FUNCTION_ARGS) {
  privileges_require_everywhere(Right::kMonitor);
  InitMaterializedSRF(fcinfo, 0);
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  master_keys_check_now();
  const keypool::Keyring *keyring = master_keys();
  HTAB *counts = count_secrets();
  for (int k = 0; k < keyring->count; ++k) {
    const keypool::MasterKey &key = keyring->keys[k];
    put_row(result, key.id, k == 0, &key, take_count(counts, key.id));
  }
  put_missing(result, counts);
  return Datum{0};
}

}  // extern "C"
