// keyring_view.cpp - keypool_keyring: which master keys there are, and what they seal.
#include "pg/postgres_api.h"

#include "pg/arguments.h"
#include "pg/master_keys.h"
#include "pg/owner_query.h"
#include "pg/rights.h"

static const char *const kCountSecrets =
    "SELECT sealed.id, pg_catalog.count(*) FROM"
    " (SELECT pg_catalog.substring(key_value, '^enc:v1:([A-Za-z0-9._-]{1,64}):') AS id FROM keypool.provider_keys) "
    "sealed"
    " WHERE sealed.id IS NOT NULL GROUP BY sealed.id ORDER BY sealed.id USING OPERATOR(pg_catalog.<)";

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

struct SecretCount {
  const char *master_key_id;
  int64 secrets;
};

// Counts the sealed secrets of each master key.
static SecretCount *count_secrets(int *ids) {
  MemoryContext context = CurrentMemoryContext;
  SPI_connect();
  *ids = static_cast<int>(owner_execute_connected(kCountSecrets, {}));
  auto *counts = static_cast<SecretCount *>(MemoryContextAlloc(context, Max(*ids, 1) * sizeof(SecretCount)));
  for (int i = 0; i < *ids; ++i) {
    bool is_null;
    const char *id = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
    counts[i].master_key_id = MemoryContextStrdup(context, id);
    counts[i].secrets = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &is_null));
  }
  SPI_finish();
  return counts;
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_keyring);
Datum keypool_keyring(PG_FUNCTION_ARGS) {
  rights_require_everywhere(Right::kLook);
  InitMaterializedSRF(fcinfo, 0);
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  master_keys_check_now();
  const keypool::Keyring *keyring = master_keys();
  int ids;
  SecretCount *counts = count_secrets(&ids);
  for (int k = 0; k < keyring->count; ++k) {
    int64 secrets = 0;
    for (int i = 0; i < ids; ++i)
      if (strcmp(counts[i].master_key_id, keyring->keys[k].id) == 0) secrets = counts[i].secrets;
    put_row(result, keyring->keys[k].id, k == 0, &keyring->keys[k], secrets);
  }
  for (int i = 0; i < ids; ++i)
    if (keypool::FindMasterKey(*keyring, counts[i].master_key_id) == nullptr)
      put_row(result, counts[i].master_key_id, false, nullptr, counts[i].secrets);
  return Datum{0};
}

}  // extern "C"
