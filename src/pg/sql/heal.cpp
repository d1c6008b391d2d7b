// heal.cpp - keypool_heal: every secret under the primary master key, and every key and quota with a meter.
#include "pg/server/postgres_api.h"

#include "pg/catalog/owner_query.h"
#include "pg/catalog/privileges.h"
#include "pg/catalog/relations.h"
#include "pg/secrets/known_master_keys.h"
#include "pg/secrets/master_keys.h"
#include "pg/secrets/secrets.h"
#include "pg/server/arguments.h"
#include "pg/server/key_ids.h"
#include "pg/server/report.h"

#define KEYS_WITHOUT_METER        \
  " FROM keypool.provider_keys k" \
  " WHERE NOT EXISTS (SELECT FROM keypool.key_meters m WHERE m.key_id OPERATOR(pg_catalog.=) k.id)"
#define QUOTAS_WITHOUT_METER \
  " FROM keypool.quotas q"   \
  " WHERE NOT EXISTS (SELECT FROM keypool.quota_meters m WHERE m.quota_id OPERATOR(pg_catalog.=) q.id)"
static const char *const kFindMissingMeters =
    "SELECT" KEYS_WITHOUT_METER " UNION ALL SELECT" QUOTAS_WITHOUT_METER " LIMIT 1";
// Fresh ones, in their text form. What is not as configured their first use sees to.
static const char *const kAddMissingKeyMeters =
    "INSERT INTO keypool.key_meters (key_id, meter) SELECT k.id, '2'" KEYS_WITHOUT_METER;
static const char *const kAddMissingQuotaMeters =
    "INSERT INTO keypool.quota_meters (quota_id, meter) SELECT q.id, '2'" QUOTAS_WITHOUT_METER;
static const char *const kReadBatch =
    "SELECT id, provider_id, key_value, unopened_since IS NOT NULL, fingerprint IS NULL FROM keypool.provider_keys"
    " WHERE id OPERATOR(pg_catalog.>) $1 AND provider_id IS NOT NULL AND key_value IS NOT NULL"
    " ORDER BY id USING OPERATOR(pg_catalog.<) LIMIT $2 FOR NO KEY UPDATE";
static const char *const kStoreSecret =
    "UPDATE keypool.provider_keys SET key_value = $2 WHERE id OPERATOR(pg_catalog.=) $1";
static const char *const kNoteUnopened =
    "UPDATE keypool.provider_keys SET unopened_since = pg_catalog.now() WHERE id OPERATOR(pg_catalog.=) $1";
static const char *const kNoteOpened =
    "UPDATE keypool.provider_keys SET unopened_since = NULL WHERE id OPERATOR(pg_catalog.=) $1";

enum class Healed { kNothingToDo, kResealed, kFailed };

static Datum column(HeapTuple row, int number) {
  bool is_null;
  return SPI_getbinval(row, SPI_tuptable->tupdesc, number, &is_null);
}

static bool is_sealed_by_primary(const keypool::StoredSecret &stored) {
  return stored.form == keypool::SecretForm::kSealed && stored.master_key_id() == master_keys()->keys[0].id;
}

static void execute_for(const keypool::KeyId &id, const char *sql) {
  QueryArguments arguments;
  arguments.Add(UUIDOID, key_id_datum(id));
  owner_execute(sql, arguments);
}

static void warn(const keypool::KeyId &id, const char *what, const keypool::Status &status) {
  ereport(WARNING, errmsg("keypool: key %s %s: %s", DatumGetCString(DirectFunctionCall1(uuid_out, key_id_datum(id))),
                          what, status.message));
}

// The master key has opened a secret here, so that it is what its id stands for.
static void note_master_key(const keypool::StoredSecret &stored) {
  if (stored.form != keypool::SecretForm::kSealed) return;
  const keypool::MasterKey *key = keypool::FindMasterKey(*master_keys(), stored.master_key_id());
  if (key != nullptr) known_master_keys_enter_proven(master_keys(), *key);
}

static void store_secret(const keypool::KeyId &id, text *sealed) {
  QueryArguments arguments;
  arguments.Add(UUIDOID, key_id_datum(id));
  arguments.Add(TEXTOID, PointerGetDatum(sealed));
  owner_execute(kStoreSecret, arguments);
}

// What is known of a key beside its secret.
struct KnownOfKey {
  bool noted;  // it is noted already that the secret does not open
  bool has_fingerprint;
};

static Healed heal_secret(const keypool::SecretOwner &owner, std::string_view stored_text, const KnownOfKey &known) {
  keypool::StoredSecret stored;
  keypool::ParseStored(stored_text, static_cast<uint8_t *>(palloc(stored_text.size() + 1)), &stored);
  if (stored.form == keypool::SecretForm::kNone) return Healed::kNothingToDo;
  keypool::Status status = open_secret(stored, owner);
  if (status.code == keypool::Code::kInternal) report_status(status);
  if (status.code == keypool::Code::kMissingMasterKey) {
    warn(owner.id, "stays sealed", status);  // and works again when the master key is back
    return Healed::kFailed;
  }
  if (!status.ok()) {
    if (!known.noted) execute_for(owner.id, kNoteUnopened);
    warn(owner.id, "is noted as unopened", status);
    return Healed::kFailed;
  }
  note_master_key(stored);
  bool current = is_sealed_by_primary(stored) && !opened_secret_is_outdated() && known.has_fingerprint;
  text *sealed = current ? nullptr : seal_secret(text_view(opened_secret()), owner);
  opened_secret_wipe();
  if (sealed != nullptr)
    store_secret(owner.id, sealed);  // which is a success, too
  else if (known.noted)
    execute_for(owner.id, kNoteOpened);
  return sealed != nullptr ? Healed::kResealed : Healed::kNothingToDo;
}

// Between SPI_connect and SPI_finish. The locks are those that the triggers on the tables of meters take, and must come
// first.
static void add_missing_meters(void) {
  if (owner_execute_connected(kFindMissingMeters, {}) == 0) return;
  LockRelationOid(relations().provider_keys, ShareRowExclusiveLock);
  LockRelationOid(relations().quotas, ShareRowExclusiveLock);
  owner_execute_connected(kAddMissingKeyMeters, {});
  owner_execute_connected(kAddMissingQuotaMeters, {});
}

// How far a run has come.
struct Run {
  int64 healed;
  int64 failed;
  keypool::KeyId last;  // ids up to here are done
};

// Heals the next keys in the order of their ids; false if there are none left. Between SPI_connect and SPI_finish.
static bool heal_batch(Run *run, int64 size) {
  QueryArguments arguments;
  arguments.Add(UUIDOID, key_id_datum(run->last));
  arguments.Add(INT8OID, Int64GetDatum(size));
  LockRelationOid(relations().provider_keys, RowExclusiveLock);  // as the changes to come do, before any row
  uint64 count = owner_execute_connected(kReadBatch, arguments);
  SPITupleTable *rows = SPI_tuptable;
  for (uint64 i = 0; i < count; ++i) {
    CHECK_FOR_INTERRUPTS();
    SPI_tuptable = rows;
    text *provider = DatumGetTextPP(column(rows->vals[i], 2));
    text *stored = DatumGetTextPP(column(rows->vals[i], 3));
    keypool::SecretOwner owner = {key_id_from_datum(column(rows->vals[i], 1)), text_view(provider)};
    KnownOfKey known = {DatumGetBool(column(rows->vals[i], 4)), !DatumGetBool(column(rows->vals[i], 5))};
    Healed outcome = heal_secret(owner, text_view(stored), known);
    run->healed += outcome == Healed::kResealed;
    run->failed += outcome == Healed::kFailed;
    run->last = owner.id;
  }
  SPI_freetuptable(rows);
  return count > 0;
}

static void check_may_heal(const char *function) {
  report_if_read_only(function);
  privileges_require_everywhere(Right::kOperator);
  report_status(master_keys_diagnosis());  // without the right keyring nothing is touched
}

static Datum heal_row(FunctionCallInfo fcinfo, const Run &run) {
  TupleDesc columns;
  if (get_call_result_type(fcinfo, nullptr, &columns) != TYPEFUNC_COMPOSITE)
    elog(ERROR, "keypool: result must be a row");
  Datum values[] = {Int64GetDatum(run.healed), Int64GetDatum(run.failed)};
  bool nulls[] = {false, false};
  return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(columns), values, nulls));
}

static constexpr int64 kBatch = 100;  // of keypool_heal; bounds its memory

extern "C" {

PG_FUNCTION_INFO_V1(keypool_heal);
Datum keypool_heal(PG_FUNCTION_ARGS) {
  check_may_heal("keypool_heal");
  Run run = {};
  SPI_connect();
  add_missing_meters();
  while (heal_batch(&run, kBatch)) continue;
  SPI_finish();
  return heal_row(fcinfo, run);
}

// A procedure: commits after each batch, so that what is done stays done if it is stopped.
PG_FUNCTION_INFO_V1(keypool_heal_in_batches);
Datum keypool_heal_in_batches(PG_FUNCTION_ARGS) {
  argument_require(fcinfo, 0, "batch_size");
  int64 batch = PG_GETARG_INT32(0);
  if (batch < 1) ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("batch_size must be positive"));
  check_may_heal("keypool_heal_in_batches");
  auto *call = reinterpret_cast<CallContext *>(fcinfo->context);
  bool atomic = call == nullptr || !IsA(call, CallContext) || call->atomic;
  Run run = {};
  SPI_connect_ext(atomic ? 0 : SPI_OPT_NONATOMIC);
  add_missing_meters();
  while (heal_batch(&run, batch))
    if (!atomic) SPI_commit();
  SPI_finish();
  return heal_row(fcinfo, run);
}

}  // extern "C"
