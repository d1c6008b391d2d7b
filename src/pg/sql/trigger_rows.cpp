// trigger_rows.cpp - the rows that keypool's triggers are called for, and what their columns may hold.
#include "pg/sql/trigger_rows.h"

#include "core/provider_name.h"
#include "core/quota/account.h"
#include "core/quota/model_pattern.h"
#include "core/secret/given_text.h"
#include "pg/catalog/relations.h"
#include "pg/server/core_call.h"
#include "pg/server/report.h"
#include "pg/server/utf8.h"

using keypool::Status;

static constexpr int kMaxPatterns = 100;  // of one column

TriggerData *trigger_data(FunctionCallInfo fcinfo, const char *function, std::initializer_list<Oid> tables,
                          TriggerEvent timing) {
  TriggerData *trigger = CALLED_AS_TRIGGER(fcinfo) ? reinterpret_cast<TriggerData *>(fcinfo->context) : nullptr;
  bool known = false;
  if (trigger != nullptr)
    for (Oid table : tables) known = known || RelationGetRelid(trigger->tg_relation) == table;
  if (!known || (trigger->tg_event & timing) != timing)
    ereport(ERROR, errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
            errmsg("%s must be called by the trigger that keypool made", function));
  return trigger;
}

void refuse_column(const Status &status, const char *row) {
  if (status.code != keypool::Code::kInvalidArgument) report_status(status);
  if (status.ok()) return;
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", status.message),
          row != nullptr ? errdetail_internal("%s", row) : 0);
}

void check_provider_column(std::string_view provider) {
  report_status(call_core([&] { return keypool::CheckProviderName(provider); }));
}

void check_account_column(std::string_view account, const char *row) {
  account = utf8_of_text(account, "account");
  refuse_column(call_core([&] { return keypool::CheckAccount(account); }), row);
  refuse_column(call_core([&] { return keypool::CheckGivenName(account, "account"); }), row);
}

[[noreturn]] static void refuse_models(const char *column, const char *what, const char *row) {
  refuse_column(keypool::Failure(keypool::Code::kInvalidArgument, "%s %s", column, what), row);
  pg_unreachable();
}

void check_models_column(Datum models, const char *column, const char *row) {
  ArrayType *array = DatumGetArrayTypeP(models);
  if (ARR_NDIM(array) == 0) refuse_models(column, "must not be an empty array", row);
  if (ARR_NDIM(array) != 1) refuse_models(column, "must have one dimension", row);
  Datum *patterns;
  bool *nulls;
  int count;
  deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &patterns, &nulls, &count);
  if (count > kMaxPatterns) refuse_models(column, psprintf("must not have more than %d elements", kMaxPatterns), row);
  for (int i = 0; i < count; ++i) {
    if (nulls[i]) refuse_models(column, "must not contain NULL", row);
    std::string_view pattern = text_view(DatumGetTextPP(patterns[i]));
    Status status = call_core([&] { return keypool::CheckPattern(pattern); });
    if (!status.ok()) refuse_models(column, psprintf("has an element that is no pattern: %s", status.message), row);
  }
}

void check_time_zone_column(Datum time_zone) {
  if (period_clock_zone(text_to_cstring(DatumGetTextPP(time_zone))) == nullptr)
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("time_zone is not the name of a time zone"),
            errhint("pg_timezone_names has them, such as America/Los_Angeles."));
}

uint32 call_timeout_of(std::string_view provider) {
  Relation providers = table_open(relations().providers, AccessShareLock);
  Snapshot snapshot = snapshot_of_now();
  ScanKeyData condition;
  text *wanted = cstring_to_text_with_len(provider.data(), static_cast<int>(provider.size()));
  ScanKeyInit(&condition, kProvidersProvider, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(wanted));
  SysScanDesc scan = systable_beginscan(providers, relations().providers_by_name, true, snapshot, 1, &condition);
  uint32 result = keypool::kDefaultCallTimeout;
  if (HeapTuple row = systable_getnext(scan)) {
    bool is_null;
    Datum timeout = heap_getattr(row, kProvidersCallTimeout, RelationGetDescr(providers), &is_null);
    if (!is_null) result = static_cast<uint32>(DatumGetInt32(timeout));
  }
  systable_endscan(scan);
  UnregisterSnapshot(snapshot);
  table_close(providers, AccessShareLock);
  return Min(Max(result, keypool::kMinCallTimeout), keypool::kMaxCallTimeout);
}
