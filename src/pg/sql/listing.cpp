// listing.cpp - keypool_list_keys: what the keys look like now, without their secrets.
#include "pg/sql/listing.h"

#include "core/provider/error_rules.h"
#include "core/quota/breaker.h"
#include "core/quota/settling.h"
#include "pg/catalog/privileges.h"
#include "pg/catalog/relations.h"
#include "pg/pool/ask_key.h"
#include "pg/pool/call_meters.h"
#include "pg/secrets/master_keys.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/server/key_ids.h"
#include "pg/server/report.h"
#include "pg/state/meter_store.h"

using keypool::KeyId;
using keypool::Meter;
using keypool::TimeUs;

// Columns of keypool_list_keys, in order.
enum ListColumn {
  kId,
  kProvider,
  kLabel,
  kPriority,
  kMaxRpm,
  kMaxTpm,
  kIsActive,
  kLast429At,
  kCooldownUntil,
  kTotalRequests,
  kTotalTokens,
  kCreatedAt,
  kUpdatedAt,
  kLastUsedAt,
  kWindowRequests,
  kWindowTokens,
  kOpenReservations,
  kAccount,  // from here on as in keypool.provider_keys
  kAttributes = kAccount + kKeysAttributes - kKeysAccount,
  kExpiresAt,
  kInFlight,
  kBreaker,
  kBreakerUntil,
  kBreakerReason,
  kState,
  kListColumns
};

struct ResultRow {
  Datum values[kListColumns];
  bool nulls[kListColumns];

  void Set(int column, Datum value, bool is_null = false) {
    values[column] = value;
    nulls[column] = is_null;
  }
  void SetTime(int column, TimeUs time) { Set(column, TimestampTzGetDatum(clock_to_timestamptz(time)), time == 0); }
};

// The provider whose keys are being listed, as selections know it.
struct ListedPool {
  text *provider;  // null: none yet
  Pool *pool;      // null: it has no keys any more
  MeterTables tables;
};

static void leave_pool(ListedPool *listed) {
  if (listed->provider == nullptr) return;
  meter_tables_close(listed->tables);
  pfree(listed->provider);
  listed->provider = nullptr;
}

// Goes on to a provider, if it is another one.
static void enter_pool(ListedPool *listed, std::string_view provider) {
  if (listed->provider != nullptr && text_view(listed->provider) == provider) return;
  leave_pool(listed);
  master_keys_check();
  listed->provider = cstring_to_text_with_len(provider.data(), static_cast<int>(provider.size()));
  listed->pool = pool_cache_open_provider(provider, AccessShareLock, &listed->tables);
}

// NULL for a key that is gone since, or of another meter.
static void set_state(ResultRow *result, ListedPool *listed, const KeyId &id) {
  PoolMember member = listed->pool != nullptr ? pool_cache_find(*listed->pool, id) : PoolMember{};
  KeyAnswer said = {};
  said.kind = KeyAnswer::kMoved;
  if (member.kind == PoolMember::kKey) said = ask_key_of_any_model(listed->tables, listed->pool, member.index);
  bool is_null = said.kind == KeyAnswer::kMoved;
  result->Set(kState, is_null ? Datum{0} : CStringGetTextDatum(key_state_name(key_state(said))), is_null);
}

// A meter that has seen a wrong time looks as its next use will leave it.
static void move_wrong_clock(std::string_view provider, TimeUs now, Meter *copy) {
  if (!keypool::ClockWasWrong(*copy, now)) return;
  const ProviderRules *rules = load_provider_rules(provider, GetActiveSnapshot());
  keypool::MeterEdit edit(copy);
  keypool::Second next = keypool::SecondOf(now) + 1;  // days and months are not shown
  keypool::MoveToNow(&edit, {next, next}, longest_block(*rules), now);
}

void copy_listed_meter(const MeterFinder &finder, const KeyId &id, std::string_view provider, TimeUs now, Meter *copy) {
  if (!meter_finder_copy(finder, id, copy))
    *copy = keypool::FreshMeter(keypool::kSecondSlots, keypool::kDefaultCallTimeout);
  move_wrong_clock(provider, now, copy);
}

static void set_configuration(ResultRow *result, HeapTuple row, TupleDesc columns, TimeUs *inactive_until) {
  Datum values[kKeysColumns];
  bool nulls[kKeysColumns];
  read_provider_keys_row(row, columns, values, nulls);
  auto copy = [&](int to, int from) { result->Set(to, values[from - 1], nulls[from - 1]); };
  copy(kId, kKeysId);
  copy(kProvider, kKeysProvider);
  copy(kLabel, kKeysLabel);
  copy(kPriority, kKeysPriority);
  copy(kMaxRpm, kKeysMaxRpm);
  copy(kMaxTpm, kKeysMaxTpm);
  copy(kIsActive, kKeysIsActive);
  copy(kCreatedAt, kKeysCreatedAt);
  copy(kUpdatedAt, kKeysUpdatedAt);
  for (int from = kKeysAccount; from <= kKeysExpiresAt; ++from) copy(kAccount + from - kKeysAccount, from);
  *inactive_until =
      nulls[kKeysInactiveUntil - 1] ? 0 : clock_from_timestamptz(DatumGetTimestampTz(values[kKeysInactiveUntil - 1]));
}

static void set_use(ResultRow *result, const Meter &meter, TimeUs inactive_until, TimeUs now) {
  const keypool::RecordedMeter &recorded = meter.recorded;
  keypool::WindowUse use = keypool::UseInWindow(meter, now);
  result->SetTime(kLast429At, recorded.last_429_at);
  result->SetTime(kCooldownUntil, Max(recorded.blocked_until, inactive_until));
  result->SetTime(kLastUsedAt, recorded.totals.last_used_at);
  result->Set(kTotalRequests, Int64GetDatum(recorded.totals.requests));
  result->Set(kTotalTokens, Int64GetDatum(recorded.totals.tokens));
  result->Set(kWindowRequests, Int64GetDatum(use.requests));
  result->Set(kWindowTokens, Int64GetDatum(use.tokens));
  result->Set(kOpenReservations, Int64GetDatum(use.open));
  result->Set(kInFlight, Int64GetDatum(keypool::CallsInFlight(meter, now).calls));
}

static const char *breaker_word(const Meter &meter, TimeUs now) {
  switch (keypool::BreakerStateOf(meter, now)) {
    case keypool::BreakerState::kOpen:
      return "open";
    case keypool::BreakerState::kHalfOpen:
      return keypool::BreakerHoldsUntil(meter, now) != 0 ? "probed" : "due";
    default:
      return keypool::IsSuspect(meter, now) ? "suspect" : "closed";
  }
}

static void set_breaker(ResultRow *result, const Meter &meter, TimeUs now) {
  const keypool::Breaker &breaker = meter.recorded.breaker;
  bool is_suspect = keypool::IsSuspect(meter, now);
  result->Set(kBreaker, CStringGetTextDatum(breaker_word(meter, now)));
  result->SetTime(kBreakerUntil, is_suspect ? breaker.open_until : keypool::BreakerHoldsUntil(meter, now));
  bool has_reason = breaker.reason > 0 && breaker.reason < static_cast<int>(keypool::AnswerClass::kCount);
  auto reason = static_cast<keypool::AnswerClass>(has_reason ? breaker.reason : 0);
  result->Set(kBreakerReason, has_reason ? CStringGetTextDatum(keypool::AnswerClassName(reason)) : Datum{0},
              !has_reason);
}

// Reads a row of keypool.provider_keys; false if the user may not see it.
static bool list_key(HeapTuple row, TupleDesc columns, const MeterFinder &finder, ListedPool *pool, TimeUs now,
                     ResultRow *listed) {
  TimeUs inactive_until;
  set_configuration(listed, row, columns, &inactive_until);
  std::string_view provider = text_view(DatumGetTextPP(listed->values[kProvider]));
  if (!privileges_allow(Right::kMonitor, provider)) return false;
  if (!privileges_allow(Right::kApp, provider)) listed->Set(kAttributes, Datum{0}, true);
  KeyId id = key_id_from_datum(listed->values[kId]);
  enter_pool(pool, provider);
  set_state(listed, pool, id);
  Meter meter;
  copy_listed_meter(finder, id, provider, now, &meter);
  set_use(listed, meter, inactive_until, now);
  set_breaker(listed, meter, keypool::MeterNow(meter, now));
  return true;
}

static void list_keys(ReturnSetInfo *result, std::string_view provider, TimeUs now) {
  Relation keys = table_open(relations().provider_keys, AccessShareLock);
  Relation order = index_open(relations().provider_keys_by_order, AccessShareLock);
  Relation meters = meter_table_open(MeterKind::kKey, AccessShareLock);
  Snapshot snapshot = GetActiveSnapshot();
  ScanKeyData condition;
  int conditions = provider.empty() ? 0 : 1;
  if (conditions == 1) {
    text *wanted = cstring_to_text_with_len(provider.data(), static_cast<int>(provider.size()));
    ScanKeyInit(&condition, kKeysProvider, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(wanted));
  }
  SysScanDesc scan = systable_beginscan_ordered(keys, order, snapshot, conditions, &condition);
  MeterFinder finder = meter_finder_begin(MeterKind::kKey, meters, snapshot);
  ListedPool pool = {};
  while (HeapTuple row = systable_getnext_ordered(scan, ForwardScanDirection)) {
    CHECK_FOR_INTERRUPTS();
    ResultRow listed;
    if (list_key(row, RelationGetDescr(keys), finder, &pool, now, &listed))
      tuplestore_putvalues(result->setResult, result->setDesc, listed.values, listed.nulls);
  }
  leave_pool(&pool);
  meter_finder_end(&finder);
  systable_endscan_ordered(scan);
  table_close(meters, AccessShareLock);
  index_close(order, AccessShareLock);
  table_close(keys, AccessShareLock);
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_list_keys);
Datum keypool_list_keys(PG_FUNCTION_ARGS) {
  std::string_view provider;
  if (!PG_ARGISNULL(0)) {
    provider = argument_provider(fcinfo, 0);
    privileges_require(Right::kMonitor, provider);
  }
  InitMaterializedSRF(fcinfo, 0);
  list_keys(reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo), provider, clock_now());
  return Datum{0};
}

}  // extern "C"
