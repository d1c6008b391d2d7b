// heal.cpp - keypool_heal: every secret under the primary master key, and every key with a state.
#include "pg/postgres_api.h"

#include <openssl/crypto.h>

#include "pg/arguments.h"
#include "pg/key_ids.h"
#include "pg/master_keys.h"
#include "pg/owner_query.h"
#include "pg/report.h"
#include "pg/secrets.h"

static const char *const kAddMissingStates =
    "INSERT INTO keypool.key_state (key_id, state) SELECT k.id, '1' FROM keypool.provider_keys k"
    " WHERE NOT EXISTS (SELECT FROM keypool.key_state s WHERE s.key_id OPERATOR(pg_catalog.=) k.id)";
static const char *const kReadSecrets =
    "SELECT id, provider_id, key_value FROM keypool.provider_keys ORDER BY id USING OPERATOR(pg_catalog.<)"
    " FOR NO KEY UPDATE";
static const char *const kStoreSecret =
    "UPDATE keypool.provider_keys SET key_value = $2 WHERE id OPERATOR(pg_catalog.=) $1";
static const char *const kDeactivate =
    "UPDATE keypool.provider_keys SET is_active = false, inactive_until = NULL"
    " WHERE id OPERATOR(pg_catalog.=) $1 AND (is_active OR inactive_until IS NOT NULL)";

enum class Healed { kNothingToDo, kResealed, kFailed };

static Datum column(HeapTuple row, int number) {
  bool is_null;
  return SPI_getbinval(row, SPI_tuptable->tupdesc, number, &is_null);
}

static bool is_sealed_by_primary(const keypool::StoredSecret &stored) {
  return stored.form == keypool::SecretForm::kSealed && strcmp(stored.master_key_id, master_keys()->keys[0].id) == 0;
}

static void deactivate(const keypool::KeyId &id, const keypool::Status &status) {
  QueryArguments arguments;
  arguments.Add(UUIDOID, key_id_datum(id));
  owner_execute(kDeactivate, arguments);
  ereport(WARNING, errmsg("keypool: key %s is switched off: %s",
                          DatumGetCString(DirectFunctionCall1(uuid_out, key_id_datum(id))), status.message));
}

static Healed heal_secret(const keypool::SecretOwner &owner, std::string_view stored_text) {
  static char secret[keypool::kMaxSecretBytes];
  keypool::StoredSecret stored;
  keypool::ParseStored(stored_text, static_cast<uint8_t *>(palloc(stored_text.size() + 1)), &stored);
  size_t size = 0;
  keypool::Status status = open_secret(stored, owner, secret, &size);
  if (status.code == keypool::Code::kInternal) report_status(status);
  if (!status.ok()) {
    deactivate(owner.id, status);
    return Healed::kFailed;
  }
  text *sealed = is_sealed_by_primary(stored) ? nullptr : seal_secret({secret, size}, owner);
  OPENSSL_cleanse(secret, size);
  if (sealed == nullptr) return Healed::kNothingToDo;
  QueryArguments arguments;
  arguments.Add(UUIDOID, key_id_datum(owner.id));
  arguments.Add(TEXTOID, PointerGetDatum(sealed));
  owner_execute(kStoreSecret, arguments);
  return Healed::kResealed;
}

static void heal_all(int64 *healed, int64 *failed) {
  SPI_connect();
  owner_execute_connected(kAddMissingStates, {});
  uint64 count = owner_execute_connected(kReadSecrets, {});
  SPITupleTable *rows = SPI_tuptable;
  for (uint64 i = 0; i < count; ++i) {
    CHECK_FOR_INTERRUPTS();
    SPI_tuptable = rows;
    text *provider = DatumGetTextPP(column(rows->vals[i], 2));
    text *stored = DatumGetTextPP(column(rows->vals[i], 3));
    keypool::SecretOwner owner = {key_id_from_datum(column(rows->vals[i], 1)), text_view(provider)};
    Healed outcome = heal_secret(owner, text_view(stored));
    *healed += outcome == Healed::kResealed;
    *failed += outcome == Healed::kFailed;
  }
  SPI_finish();
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_heal);
Datum keypool_heal(PG_FUNCTION_ARGS) {
  report_if_read_only("keypool_heal");
  TupleDesc columns;
  if (get_call_result_type(fcinfo, nullptr, &columns) != TYPEFUNC_COMPOSITE)
    elog(ERROR, "keypool_heal must return a row");
  master_keys_primary();  // without a usable keyring nothing is touched
  int64 healed = 0, failed = 0;
  heal_all(&healed, &failed);
  Datum values[] = {Int64GetDatum(healed), Int64GetDatum(failed)};
  bool nulls[] = {false, false};
  return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(columns), values, nulls));
}

}  // extern "C"
