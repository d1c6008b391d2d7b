// quota_admin.cpp - keypool_set_quota, keypool_delete_quota and keypool_set_provider: ordinary, transactional
// configuration.
#include "pg/server/postgres_api.h"

#include "core/quota/amounts.h"
#include "core/quota/meter.h"
#include "pg/catalog/owner_query.h"
#include "pg/catalog/privileges.h"
#include "pg/catalog/provider_changes.h"
#include "pg/catalog/relations.h"
#include "pg/secrets/new_secrets.h"
#include "pg/server/arguments.h"
#include "pg/server/key_ids.h"
#include "pg/server/report.h"
#include "pg/sql/settings_json.h"

using keypool::KeyId;

static constexpr SettingColumn kQuotaSettings[] = {
    {"account", SettingKind::kText, 0, 0, nullptr},
    {"models", SettingKind::kTexts, 0, 0, nullptr},
    {"except_models", SettingKind::kTexts, 0, 0, nullptr},
    {"max_rpm", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_tpm", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_output_tpm", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_rph", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_tph", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_rpd", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_tpd", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_requests_per_month", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_tokens_per_month", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_cost_per_day", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_cost_per_month", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"max_in_flight", SettingKind::kNumber, 0, PG_INT64_MAX, nullptr},
    {"burst_seconds", SettingKind::kNumber, 1, 30, nullptr},
    {"counts", SettingKind::kText, 0, 0, "tokens, prompt, input, uncached"},
    {"output_weight", SettingKind::kNumber, 1, keypool::kMaxOutputWeight, nullptr},
    {"time_zone", SettingKind::kText, 0, 0, nullptr},
    {"day", SettingKind::kText, 0, 0, "calendar, rolling"},
};

static constexpr SettingColumn kProviderSettings[] = {
    {"strategy", SettingKind::kText, 0, 0, "rotate, fill_first"},
    {"time_zone", SettingKind::kText, 0, 0, nullptr},
    {"default_tokens", SettingKind::kNumber, 0, keypool::kMaxTokens, nullptr},
    {"default_cooldown", SettingKind::kNumber, 1, PG_INT32_MAX, nullptr},
    {"max_cooldown", SettingKind::kNumber, 1, PG_INT32_MAX, nullptr},
    {"rate_limit_scope", SettingKind::kText, 0, 0, "key, model, account"},
    {"call_timeout", SettingKind::kNumber, keypool::kMinCallTimeout, keypool::kMaxCallTimeout, nullptr},
    {"breaker_threshold", SettingKind::kNumber, 0, 1000, nullptr},
};

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
  QueryArguments arguments;
  argument_quota(fcinfo, "keypool_delete_quota", &arguments);
  if (owner_execute(kDeleteQuota, arguments) == 0)
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
  if (!settings.any()) PG_RETURN_VOID();
  Lists lists;
  lists.arguments.Add(TEXTOID, PG_GETARG_DATUM(0));
  list(settings, &lists);
  const char *names = lists.names.data;
  const char *values = lists.values.data;
  owner_execute(psprintf(kSetProvider, names, values, names, values), lists.arguments);
  PG_RETURN_VOID();
}

}  // extern "C"
