// key_admin.cpp - keypool_add_key, keypool_toggle_key and keypool_delete_key: ordinary, transactional configuration.
#include "pg/server/postgres_api.h"

#include "pg/catalog/owner_query.h"
#include "pg/pool/key_access.h"
#include "pg/secrets/new_secrets.h"
#include "pg/secrets/statement_hiding.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/server/key_ids.h"
#include "pg/server/report.h"

using keypool::KeyId;

static const char *const kInsert =
    "INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value, priority, max_rpm, max_tpm, fingerprint)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
static const char *const kInsertBefore020 =
    "INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value, priority, max_rpm, max_tpm)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7)";
static const char *const kToggle =
    "UPDATE keypool.provider_keys SET is_active = $2, inactive_until = $3 WHERE id OPERATOR(pg_catalog.=) $1";
static const char *const kDelete = "DELETE FROM keypool.provider_keys WHERE id OPERATOR(pg_catalog.=) $1";

static NewSecret argument_secret(FunctionCallInfo fcinfo, int number, const keypool::SecretOwner &owner) {
  argument_require(fcinfo, number, "key_value");
  return take_new_secret(text_view(PG_GETARG_TEXT_PP(number)), owner, nullptr);
}

static void require_found(uint64 rows) {
  if (rows == 0) report_unknown_key();
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_add_key);
Datum keypool_add_key(PG_FUNCTION_ARGS) {
  hide_running_statement();
  if (!PG_ARGISNULL(2)) hide_given_secret(text_view(PG_GETARG_TEXT_PP(2)));
  std::string_view provider = argument_provider(fcinfo, 0);
  argument_require(fcinfo, 3, "priority");
  int64 max_rpm = argument_limit(fcinfo, 4, "max_rpm");
  int64 max_tpm = argument_limit(fcinfo, 5, "max_tpm");
  report_if_read_only("keypool_add_key");
  privileges_require(Right::kOperator, provider);
  check_new_provider(provider, nullptr);
  if (!PG_ARGISNULL(1)) check_new_label(text_view(PG_GETARG_TEXT_PP(1)), nullptr);
  KeyId id = new_key_id(provider);
  NewSecret secret = argument_secret(fcinfo, 2, {id, provider});

  QueryArguments arguments;
  arguments.Add(UUIDOID, key_id_datum(id));
  arguments.Add(TEXTOID, PG_GETARG_DATUM(0));
  arguments.Add(TEXTOID, PG_GETARG_DATUM(1), PG_ARGISNULL(1));
  arguments.Add(TEXTOID, PointerGetDatum(secret.sealed));
  arguments.Add(INT4OID, PG_GETARG_DATUM(3));
  arguments.Add(INT8OID, Int64GetDatum(max_rpm), max_rpm == 0);
  arguments.Add(INT8OID, Int64GetDatum(max_tpm), max_tpm == 0);
  if (secret.fingerprint != nullptr) arguments.Add(BYTEAOID, PointerGetDatum(secret.fingerprint));
  owner_execute(secret.fingerprint != nullptr ? kInsert : kInsertBefore020, arguments);
  PG_RETURN_DATUM(key_id_datum(id));
}

PG_FUNCTION_INFO_V1(keypool_toggle_key);
Datum keypool_toggle_key(PG_FUNCTION_ARGS) {
  KeyId id = argument_key(fcinfo, 0);
  argument_require(fcinfo, 1, "active");
  bool active = PG_GETARG_BOOL(1);
  bool for_a_time = !PG_ARGISNULL(2);
  if (for_a_time && active)
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("for_seconds goes only with active = false"));
  if (for_a_time && PG_GETARG_INT32(2) <= 0)
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("for_seconds must be positive"));
  report_if_read_only("keypool_toggle_key");
  key_access_check(id, Right::kOperator);

  keypool::TimeUs until = for_a_time ? clock_now() + PG_GETARG_INT32(2) * keypool::kMicrosPerSecond : 0;
  QueryArguments arguments;
  arguments.Add(UUIDOID, key_id_datum(id));
  arguments.Add(BOOLOID, BoolGetDatum(active));
  arguments.Add(TIMESTAMPTZOID, TimestampTzGetDatum(clock_to_timestamptz(until)), !for_a_time);
  require_found(owner_execute(kToggle, arguments));
  PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(keypool_delete_key);
Datum keypool_delete_key(PG_FUNCTION_ARGS) {
  KeyId id = argument_key(fcinfo, 0);
  report_if_read_only("keypool_delete_key");
  key_access_check(id, Right::kOperator);
  QueryArguments arguments;
  arguments.Add(UUIDOID, key_id_datum(id));
  require_found(owner_execute(kDelete, arguments));
  PG_RETURN_VOID();
}

}  // extern "C"
