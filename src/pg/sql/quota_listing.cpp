// quota_listing.cpp - keypool_list_quotas: the quotas, how much of them is used, and when they have room.
#include "pg/server/postgres_api.h"

#include "core/quota/call.h"
#include "pg/catalog/privileges.h"
#include "pg/catalog/relations.h"
#include "pg/pool/call_meters.h"
#include "pg/pool/limit_columns.h"
#include "pg/pool/provider_rules.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/server/key_ids.h"
#include "pg/sql/selection_row.h"
#include "pg/state/meter_store.h"

using keypool::Load;
using keypool::Meter;
using keypool::TimeUs;

// Columns of keypool_list_quotas, in order.
enum ListColumn {
  kId,
  kProvider,
  kName,
  kAccount,
  kModels,
  kExceptModels,
  kCounts,
  kFirstLimit,
  kBurstSeconds = kFirstLimit + keypool::kLimits,
  kOutputWeight,
  kTimeZone,
  kDay,
  kTotalRequests,
  kTotalTokens,
  kWindowRequests,
  kWindowTokens,
  kDayRequests,
  kDayTokens,
  kMonthRequests,
  kMonthTokens,
  kInFlight,
  kBlockedUntil,
  kRetryAfterMs,
  kListColumns
};

struct QuotaRow {
  Datum values[kListColumns];
  bool nulls[kListColumns];

  void Set(int column, Datum value, bool is_null = false) {
    values[column] = value;
    nulls[column] = is_null;
  }
  void SetNumber(int column, int64 number) { Set(column, Int64GetDatum(number)); }
};

// The provider whose quotas are being listed.
struct ListedProvider {
  MemoryContext context;  // of what follows
  std::string_view name;  // empty: none yet
  ProviderRules *rules;   // null: the user may not see them
};

// Goes on to a provider, if it is another one.
static void enter_provider(ListedProvider *provider, std::string_view name, Snapshot snapshot) {
  if (provider->name == name) return;
  MemoryContextReset(provider->context);
  MemoryContext before = MemoryContextSwitchTo(provider->context);
  provider->name = {pnstrdup(name.data(), name.size()), name.size()};
  bool allowed = privileges_allow(Right::kMonitor, provider->name);
  provider->rules = allowed ? load_provider_rules(provider->name, snapshot) : nullptr;
  MemoryContextSwitchTo(before);
}

static void set_configuration(QuotaRow *result, const Datum *values, const bool *nulls) {
  auto copy = [&](int to, AttrNumber from) { result->Set(to, values[from - 1], nulls[from - 1]); };
  copy(kId, kQuotasId);
  copy(kProvider, kQuotasProvider);
  copy(kName, kQuotasName);
  copy(kAccount, kQuotasAccount);
  copy(kModels, kQuotasModels);
  copy(kExceptModels, kQuotasExceptModels);
  copy(kCounts, kQuotasCounts);
  for (int i = 0; i < keypool::kLimits; ++i)
    copy(kFirstLimit + i, limit_column(LimitsOf::kQuotas, static_cast<keypool::Limit>(i)));
  copy(kBurstSeconds, kQuotasBurstSeconds);
  copy(kOutputWeight, kQuotasOutputWeight);
  copy(kTimeZone, kQuotasTimeZone);
  copy(kDay, kQuotasDay);
}

// Calls that are open count in the day and the month, as limits ask. A rolling day is the window.
static void set_use(QuotaRow *result, const Load &load, const keypool::Totals &totals, bool rolling_day) {
  result->SetNumber(kTotalRequests, totals.requests);
  result->SetNumber(kTotalTokens, totals.tokens);
  result->SetNumber(kWindowRequests, load.requests);
  result->SetNumber(kWindowTokens, load.tokens);
  result->SetNumber(kDayRequests, rolling_day ? load.requests : load.day_requests);
  result->SetNumber(kDayTokens, rolling_day ? load.tokens : load.day_tokens);
  result->SetNumber(kMonthRequests, load.month_requests);
  result->SetNumber(kMonthTokens, load.month_tokens);
  result->SetNumber(kInFlight, load.calls);
  TimestampTz blocked_until = clock_to_timestamptz(load.blocked_until);
  result->Set(kBlockedUntil, TimestampTzGetDatum(blocked_until), load.blocked_until == 0);
}

// For one request of no tokens. NULL: there is room.
static void set_retry_after(QuotaRow *result, const keypool::Admission &admission, TimeUs now) {
  bool admitted = admission.admitted();
  int64 wait = admitted ? 0 : milliseconds_until(admission.guess, now);
  result->Set(kRetryAfterMs, Int32GetDatum(static_cast<int32>(wait)), admitted);
}

// A meter as its next use will leave it.
static void keep_up(Meter *meter, const keypool::MeterRules &rules, TimeUs longest_block, TimeUs now) {
  if (!keypool::NeedsUpkeep(*meter, rules, now)) return;
  keypool::MeterEdit edit(meter);
  keypool::Upkeep(&edit, rules, longest_block, now);
}

// What the meter says. A quota without one, of which loading the rules has warned, looks like one that is not used.
static void set_meter(QuotaRow *result, const MeterFinder &finder, ProviderRules *rules, TimeUs now) {
  std::string_view name = text_view(DatumGetTextPP(result->values[kName]));
  PoolQuota *quota = quota_of_name(*rules, name);
  Meter meter;
  if (quota == nullptr || !meter_finder_copy(finder, quota->place.id, &meter)) {
    set_use(result, {}, {}, false);
    result->Set(kRetryAfterMs, Datum{0}, true);
    return;
  }
  const keypool::MeterRules *meter_rules = quota_rules_at(quota, now);
  keep_up(&meter, *meter_rules, longest_block(*rules), now);
  set_use(result, keypool::LoadOf(meter, meter_rules->rule, now), meter.recorded.totals, quota->limits.rolling_day);
  set_retry_after(result, keypool::Admit(meter, quota->limits, {{}, 0, now}), now);
}

// Reads a row of keypool.quotas; false if the user may not see it.
static bool list_quota(HeapTuple row, TupleDesc columns, const MeterFinder &finder, ListedProvider *provider,
                       Snapshot snapshot, TimeUs now, QuotaRow *listed) {
  Datum values[kQuotasColumns];
  bool nulls[kQuotasColumns];
  read_quotas_row(row, columns, values, nulls);
  set_configuration(listed, values, nulls);
  enter_provider(provider, text_view(DatumGetTextPP(listed->values[kProvider])), snapshot);
  if (provider->rules == nullptr) return false;
  set_meter(listed, finder, provider->rules, now);
  return true;
}

// By provider and name.
static void list_quotas(ReturnSetInfo *result, std::string_view wanted, TimeUs now) {
  Relation quotas = table_open(relations().quotas, AccessShareLock);
  Relation order = index_open(relations().quotas_by_name, AccessShareLock);
  Relation meters = meter_table_open(MeterKind::kQuota, AccessShareLock);
  Snapshot snapshot = GetActiveSnapshot();
  ScanKeyData condition;
  if (!wanted.empty()) {
    text *provider = cstring_to_text_with_len(wanted.data(), static_cast<int>(wanted.size()));
    ScanKeyInit(&condition, kQuotasProvider, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(provider));
  }
  ListedProvider provider = {};
  provider.context = AllocSetContextCreate(CurrentMemoryContext, "keypool quotas", ALLOCSET_DEFAULT_SIZES);
  SysScanDesc scan = systable_beginscan_ordered(quotas, order, snapshot, wanted.empty() ? 0 : 1, &condition);
  MeterFinder finder = meter_finder_begin(MeterKind::kQuota, meters, snapshot);
  while (HeapTuple row = systable_getnext_ordered(scan, ForwardScanDirection)) {
    CHECK_FOR_INTERRUPTS();
    QuotaRow listed;
    if (list_quota(row, RelationGetDescr(quotas), finder, &provider, snapshot, now, &listed))
      tuplestore_putvalues(result->setResult, result->setDesc, listed.values, listed.nulls);
  }
  meter_finder_end(&finder);
  systable_endscan_ordered(scan);
  MemoryContextDelete(provider.context);
  table_close(meters, AccessShareLock);
  index_close(order, AccessShareLock);
  table_close(quotas, AccessShareLock);
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_list_quotas);
Datum keypool_list_quotas(PG_FUNCTION_ARGS) {
  std::string_view provider;
  if (!PG_ARGISNULL(0)) {
    provider = argument_provider(fcinfo, 0);
    privileges_require(Right::kMonitor, provider);
  }
  InitMaterializedSRF(fcinfo, 0);
  list_quotas(reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo), provider, clock_now());
  return Datum{0};
}

}  // extern "C"
