// quota_admin.cpp - keypool_set_quota, keypool_delete_quota and keypool_set_provider: ordinary, transactional
// configuration.
#include "pg/sql/quota_admin.h"

#include "pg/catalog/owner_query.h"
#include "pg/catalog/privileges.h"
#include "pg/catalog/provider_changes.h"
#include "pg/catalog/relations.h"
#include "pg/secrets/new_secrets.h"
#include "pg/server/arguments.h"
#include "pg/server/key_ids.h"
#include "pg/server/report.h"
#include "pg/sql/setting_columns.h"

using keypool::KeyId;

#define THIS_QUOTA " WHERE provider_id OPERATOR(pg_catalog.=) $1 AND name OPERATOR(pg_catalog.=) $2"
static const char *const kFindQuota = "SELECT id FROM keypool.quotas" THIS_QUOTA;
static const char *const kUpdateQuota = "UPDATE keypool.quotas SET (%s) = ROW(%s)" THIS_QUOTA " RETURNING id";
// A conflict is with a row that was not there a moment ago, or that an older snapshot does not see: then the server
// raises 40001.
static const char *const kInsertQuota =
    "INSERT INTO keypool.quotas (provider_id, name%s%s) VALUES ($1, $2%s%s)"
    " ON CONFLICT (provider_id, name) DO NOTHING RETURNING id";
static const char *const kDeleteQuota = "DELETE FROM keypool.quotas" THIS_QUOTA;
static const char *const kSetProvider =
    "INSERT INTO keypool.providers (provider_id, %s) VALUES ($1, %s)"
    " ON CONFLICT ON CONSTRAINT providers_pkey DO UPDATE SET (%s) = ROW(%s)";

// What a statement is told of settings.
struct Lists {
  QueryArguments arguments;
  StringInfoData names;
  StringInfoData values;
};

static void list(const Settings &settings, Lists *lists) {
  initStringInfo(&lists->names);
  initStringInfo(&lists->values);
  list_settings(settings, &lists->arguments, &lists->names, &lists->values);
}

void set_provider(Datum provider, const Settings &settings) {
  Lists lists;
  lists.arguments.Add(TEXTOID, provider);
  list(settings, &lists);
  const char *names = lists.names.data;
  const char *values = lists.values.data;
  owner_execute(psprintf(kSetProvider, names, values, names, values), lists.arguments);
}

static KeyId first_id(void) {
  bool is_null;
  return key_id_from_datum(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null));
}

// Changes the quota, if it is there. Between SPI_connect and SPI_finish.
static bool change_quota(const Settings &settings, const Lists &lists, KeyId *id) {
  const char *sql = settings.any() ? psprintf(kUpdateQuota, lists.names.data, lists.values.data) : kFindQuota;
  if (owner_execute_connected(sql, lists.arguments) == 0) return false;
  *id = first_id();
  return true;
}

// Makes the quota, if it is not there.
static bool make_quota(std::string_view provider, const Settings &settings, const Lists &lists, KeyId *id) {
  check_new_provider(provider, nullptr);
  const char *separator = settings.any() ? ", " : "";
  const char *sql = psprintf(kInsertQuota, separator, lists.names.data, separator, lists.values.data);
  if (owner_execute_connected(sql, lists.arguments) == 0) return false;
  *id = first_id();
  return true;
}

bool write_quota(Datum provider, Datum name, bool is_new, const Settings &settings) {
  Lists lists;
  lists.arguments.Add(TEXTOID, provider);
  lists.arguments.Add(TEXTOID, name);
  list(settings, &lists);
  KeyId ignored;
  SPI_connect();
  bool done = is_new ? make_quota(text_view(DatumGetTextPP(provider)), settings, lists, &ignored)
                     : change_quota(settings, lists, &ignored);
  SPI_finish();
  return done;
}

bool delete_quota(Datum provider, Datum name) {
  QueryArguments arguments;
  arguments.Add(TEXTOID, provider);
  arguments.Add(TEXTOID, name);
  return owner_execute(kDeleteQuota, arguments) != 0;
}

// The provider and the name of a quota, for an operator of that provider.
static std::string_view argument_quota(FunctionCallInfo fcinfo, const char *function, QueryArguments *arguments) {
  std::string_view provider = argument_provider(fcinfo, 0);
  argument_require(fcinfo, 1, "name");
  report_if_read_only(function);
  privileges_require(Right::kOperator, provider);
  arguments->Add(TEXTOID, PG_GETARG_DATUM(0));
  arguments->Add(TEXTOID, PG_GETARG_DATUM(1));
  return provider;
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_set_quota);
Datum keypool_set_quota(PG_FUNCTION_ARGS) {
  Lists lists;
  std::string_view provider = argument_quota(fcinfo, "keypool_set_quota", &lists.arguments);
  struct varlena *object = argument_given(fcinfo, 2) ? PG_GETARG_VARLENA_P(2) : nullptr;
  Settings settings = read_settings("settings", object, kQuotaSettings, lengthof(kQuotaSettings));
  list(settings, &lists);
  KeyId id;
  SPI_connect();
  // Its row comes before the provider, as an UPDATE locks them. If there is none, nobody may make it meanwhile, since a
  // new one is judged with these settings alone; but another one may be given its name.
  bool there = change_quota(settings, lists, &id);
  if (!there) lock_provider(relations().quotas, provider);
  while (!there) {
    CHECK_FOR_INTERRUPTS();
    there = change_quota(settings, lists, &id) || make_quota(provider, settings, lists, &id);
  }
  SPI_finish();
  PG_RETURN_DATUM(key_id_datum(id));
}

PG_FUNCTION_INFO_V1(keypool_delete_quota);
Datum keypool_delete_quota(PG_FUNCTION_ARGS) {
  QueryArguments ignored;
  argument_quota(fcinfo, "keypool_delete_quota", &ignored);
  if (!delete_quota(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)))
    ereport(ERROR, errcode(ERRCODE_KEYPOOL_NOT_FOUND), errmsg("quota does not exist"));
  PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(keypool_set_provider);
Datum keypool_set_provider(PG_FUNCTION_ARGS) {
  std::string_view provider = argument_provider(fcinfo, 0);
  argument_require(fcinfo, 1, "settings");
  Settings settings = read_settings("settings", PG_GETARG_VARLENA_P(1), kProviderSettings, lengthof(kProviderSettings));
  report_if_read_only("keypool_set_provider");
  privileges_require(Right::kOperator, provider);
  check_new_provider(provider, nullptr);
  if (settings.any()) set_provider(PG_GETARG_DATUM(0), settings);
  PG_RETURN_VOID();
}

}  // extern "C"
