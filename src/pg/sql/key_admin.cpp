// key_admin.cpp - adding, changing and removing keys: ordinary, transactional configuration.
#include "pg/sql/key_admin.h"

#include "pg/catalog/owner_query.h"
#include "pg/catalog/relations.h"
#include "pg/pool/key_access.h"
#include "pg/secrets/master_keys.h"
#include "pg/secrets/new_secrets.h"
#include "pg/secrets/statement_hiding.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/server/key_ids.h"
#include "pg/server/report.h"
#include "pg/sql/setting_columns.h"

using keypool::KeyId;

static const char *const kInsert =
    "INSERT INTO keypool.provider_keys (id, provider_id, key_value, fingerprint%s%s) VALUES ($1, $2, $3, $4%s%s)";
static const char *const kUpdate = "UPDATE keypool.provider_keys SET (%s) = ROW(%s) WHERE id OPERATOR(pg_catalog.=) $1";
static const char *const kLock =
    "SELECT provider_id, account, attributes FROM keypool.provider_keys WHERE id OPERATOR(pg_catalog.=) $1"
    " FOR NO KEY UPDATE";
static const char *const kSetSecret =
    "UPDATE keypool.provider_keys SET key_value = $2 WHERE id OPERATOR(pg_catalog.=) $1";
static const char *const kToggle =
    "UPDATE keypool.provider_keys SET is_active = $2, inactive_until = $3 WHERE id OPERATOR(pg_catalog.=) $1";
static const char *const kDelete = "DELETE FROM keypool.provider_keys WHERE id OPERATOR(pg_catalog.=) $1";
static const char *const kFind =
    "SELECT id FROM keypool.provider_keys WHERE provider_id OPERATOR(pg_catalog.=) $1"
    " AND key_label OPERATOR(pg_catalog.=) $2 LIMIT 2";

static Settings read_key_settings(FunctionCallInfo fcinfo, int number, const char *argument) {
  struct varlena *object = argument_given(fcinfo, number) ? PG_GETARG_VARLENA_P(number) : nullptr;
  return read_settings(argument, object, kKeySettings, lengthof(kKeySettings));
}

static NewSecret argument_secret(FunctionCallInfo fcinfo, int number, const keypool::SecretOwner &owner,
                                 const SecretUse &use) {
  argument_require(fcinfo, number, "key_value");
  return take_new_secret(text_view(PG_GETARG_TEXT_PP(number)), owner, use, nullptr);
}

static void require_found(uint64 rows) {
  if (rows == 0) report_unknown_key();
}

// Takes an argument in as the setting of this name, unless it is as by default.
static void take_argument(Settings *settings, const char *name, Datum value, bool is_default) {
  if (is_default) return;
  int i = settings->index_of(name);
  if (settings->given[i])
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("%s must not be given as an argument and in settings", name));
  settings->given[i] = true;
  settings->values[i] = value;
}

// The settings of keypool_add_key with its arguments beside them.
static Settings read_new_key(FunctionCallInfo fcinfo) {
  argument_require(fcinfo, 3, "priority");
  int64 max_rpm = argument_limit(fcinfo, 4, "max_rpm");
  int64 max_tpm = argument_limit(fcinfo, 5, "max_tpm");
  Settings settings = read_key_settings(fcinfo, 6, "settings");
  take_argument(&settings, "key_label", PG_ARGISNULL(1) ? Datum{0} : PG_GETARG_DATUM(1), PG_ARGISNULL(1));
  take_argument(&settings, "priority", Int64GetDatum(PG_GETARG_INT32(3)), PG_GETARG_INT32(3) == 0);
  take_argument(&settings, "max_rpm", Int64GetDatum(max_rpm), max_rpm == 0);
  take_argument(&settings, "max_tpm", Int64GetDatum(max_tpm), max_tpm == 0);
  return settings;
}

void insert_key(const KeyId &id, Datum provider, const NewSecret &secret, const Settings &settings) {
  QueryArguments arguments;
  StringInfoData names, values;
  initStringInfo(&names);
  initStringInfo(&values);
  arguments.Add(UUIDOID, key_id_datum(id));
  arguments.Add(TEXTOID, provider);
  arguments.Add(TEXTOID, PointerGetDatum(secret.sealed));
  arguments.Add(BYTEAOID, PointerGetDatum(secret.fingerprint), secret.fingerprint == nullptr);
  list_settings(settings, &arguments, &names, &values);
  const char *separator = settings.any() ? ", " : "";
  owner_execute(psprintf(kInsert, separator, names.data, separator, values.data), arguments);
}

uint64 update_key(const KeyId &id, const Settings &settings) {
  QueryArguments arguments;
  StringInfoData names, values;
  initStringInfo(&names);
  initStringInfo(&values);
  arguments.Add(UUIDOID, key_id_datum(id));
  list_settings(settings, &arguments, &names, &values);
  return owner_execute(psprintf(kUpdate, names.data, values.data), arguments);
}

uint64 replace_secret(const KeyId &id, const NewSecret &secret) {
  QueryArguments arguments;
  arguments.Add(UUIDOID, key_id_datum(id));
  arguments.Add(TEXTOID, PointerGetDatum(secret.sealed));
  return owner_execute(kSetSecret, arguments);
}

// What a new secret of a key must be checked against.
struct KeyRow {
  std::string_view provider;
  SecretUse use;
};

// Locks the table and the row of a key, as an UPDATE does before it fires the trigger that locks the provider: else the
// two could wait for each other.
static KeyRow lock_key(const KeyId &id) {
  MemoryContext context = CurrentMemoryContext;
  QueryArguments arguments;
  arguments.Add(UUIDOID, key_id_datum(id));
  LockRelationOid(relations().provider_keys, RowExclusiveLock);
  SPI_connect();
  require_found(owner_execute_connected(kLock, arguments));
  MemoryContext before = MemoryContextSwitchTo(context);
  auto column = [](int number) -> struct varlena * {
    bool is_null;
    Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, &is_null);
    return is_null ? nullptr : PG_DETOAST_DATUM_COPY(value);
  };
  KeyRow key = {text_view(column(1)), {column(2), column(3)}};
  MemoryContextSwitchTo(before);
  SPI_finish();
  return key;
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_add_key);
Datum keypool_add_key(PG_FUNCTION_ARGS) {
  hide_running_statement();
  if (!PG_ARGISNULL(2)) hide_given_secret(text_view(PG_GETARG_TEXT_PP(2)));
  std::string_view provider = argument_provider(fcinfo, 0);
  Settings settings = read_new_key(fcinfo);
  report_if_read_only("keypool_add_key");
  privileges_require(Right::kOperator, provider);
  check_new_provider(provider, nullptr);
  if (struct varlena *label = settings.value_of("key_label")) check_new_label(text_view(label), nullptr);
  KeyId id = new_key_id(provider);
  SecretUse use = {settings.value_of("account"), settings.value_of("attributes")};
  insert_key(id, PG_GETARG_DATUM(0), argument_secret(fcinfo, 2, {id, provider}, use), settings);
  PG_RETURN_DATUM(key_id_datum(id));
}

PG_FUNCTION_INFO_V1(keypool_update_key);
Datum keypool_update_key(PG_FUNCTION_ARGS) {
  KeyId id = argument_key(fcinfo, 0);
  argument_require(fcinfo, 1, "changes");
  Settings settings = read_key_settings(fcinfo, 1, "changes");
  report_if_read_only("keypool_update_key");
  key_access_check(id, Right::kOperator);
  if (!settings.any()) PG_RETURN_VOID();
  require_found(update_key(id, settings));
  PG_RETURN_VOID();
}

// The secret is sealed before the statement, which others may log, gets it.
PG_FUNCTION_INFO_V1(keypool_set_secret);
Datum keypool_set_secret(PG_FUNCTION_ARGS) {
  hide_running_statement();
  if (!PG_ARGISNULL(1)) hide_given_secret(text_view(PG_GETARG_TEXT_PP(1)));
  KeyId id = argument_key(fcinfo, 0);
  report_if_read_only("keypool_set_secret");
  key_access_check(id, Right::kOperator);
  argument_require(fcinfo, 1, "key_value");
  master_keys_primary();  // before anything is locked: a command may take its time
  KeyRow key = lock_key(id);
  NewSecret secret = argument_secret(fcinfo, 1, {id, key.provider}, key.use);
  require_found(replace_secret(id, secret));
  PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(keypool_key);
Datum keypool_key(PG_FUNCTION_ARGS) {
  std::string_view provider = argument_provider(fcinfo, 0);
  argument_require(fcinfo, 1, "key_label");
  privileges_require(Right::kMonitor, provider);
  QueryArguments arguments;
  arguments.Add(TEXTOID, PG_GETARG_DATUM(0));
  arguments.Add(TEXTOID, PG_GETARG_DATUM(1));
  SPI_connect();
  uint64 found = owner_execute_connected(kFind, arguments);
  require_found(found);
  if (found > 1)
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("key_label is that of several keys"),
            errhint("keypool_list_keys() shows their ids."));
  bool is_null;
  KeyId id = key_id_from_datum(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null));
  SPI_finish();
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
