// listing.cpp - keypool_list_keys and keypool_usage: what the keys look like now, without their secrets.
#include "pg/server/postgres_api.h"

#include "core/window.h"
#include "pg/catalog/relations.h"
#include "pg/pool/key_access.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/server/key_ids.h"
#include "pg/server/report.h"
#include "pg/state/state_store.h"

using keypool::KeyId;
using keypool::KeyState;
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

// A key without a state looks like a fresh one.
static void copy_state(const StateFinder &finder, const KeyId &id, KeyState *copy) {
  if (!state_finder_copy(finder, id, copy)) *copy = keypool::FreshState();
}

static void set_configuration(ResultRow *result, HeapTuple row, TupleDesc columns, TimeUs *inactive_until) {
  Datum values[kKeysColumns];
  bool nulls[kKeysColumns];
  read_provider_keys_row(row, columns, values, nulls);
  auto copy = [&](int to, AttrNumber from) { result->Set(to, values[from - 1], nulls[from - 1]); };
  copy(kId, kKeysId);
  copy(kProvider, kKeysProvider);
  copy(kLabel, kKeysLabel);
  copy(kPriority, kKeysPriority);
  copy(kMaxRpm, kKeysMaxRpm);
  copy(kMaxTpm, kKeysMaxTpm);
  copy(kIsActive, kKeysIsActive);
  copy(kCreatedAt, kKeysCreatedAt);
  copy(kUpdatedAt, kKeysUpdatedAt);
  *inactive_until =
      nulls[kKeysInactiveUntil - 1] ? 0 : clock_from_timestamptz(DatumGetTimestampTz(values[kKeysInactiveUntil - 1]));
}

static void set_state(ResultRow *result, const KeyState &state, TimeUs inactive_until, TimeUs now) {
  keypool::WindowUse use = keypool::UseInWindow(state, now);
  result->SetTime(kLast429At, state.recorded.last_429_at);
  result->SetTime(kCooldownUntil, Max(state.recorded.cooldown_until, inactive_until));
  result->SetTime(kLastUsedAt, state.recorded.last_used_at);
  result->Set(kTotalRequests, Int64GetDatum(state.recorded.total_requests));
  result->Set(kTotalTokens, Int64GetDatum(state.recorded.total_tokens));
  result->Set(kWindowRequests, Int64GetDatum(use.requests));
  result->Set(kWindowTokens, Int64GetDatum(use.tokens));
  result->Set(kOpenReservations, Int64GetDatum(use.open));
}

static void list_keys(ReturnSetInfo *result, std::string_view provider, TimeUs now) {
  Relation keys = table_open(relations().provider_keys, AccessShareLock);
  Relation order = index_open(relations().provider_keys_by_order, AccessShareLock);
  Relation states = state_store_open(AccessShareLock);
  Snapshot snapshot = GetActiveSnapshot();
  ScanKeyData condition;
  int conditions = provider.empty() ? 0 : 1;
  if (conditions == 1) {
    text *wanted = cstring_to_text_with_len(provider.data(), static_cast<int>(provider.size()));
    ScanKeyInit(&condition, kKeysProvider, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(wanted));
  }
  SysScanDesc scan = systable_beginscan_ordered(keys, order, snapshot, conditions, &condition);
  StateFinder finder = state_finder_begin(states, snapshot);
  while (HeapTuple row = systable_getnext_ordered(scan, ForwardScanDirection)) {
    CHECK_FOR_INTERRUPTS();
    ResultRow listed;
    TimeUs inactive_until;
    KeyState state;
    set_configuration(&listed, row, RelationGetDescr(keys), &inactive_until);
    if (!privileges_allow(Right::kMonitor, text_view(DatumGetTextPP(listed.values[kProvider])))) continue;
    copy_state(finder, key_id_from_datum(listed.values[kId]), &state);
    set_state(&listed, state, inactive_until, now);
    tuplestore_putvalues(result->setResult, result->setDesc, listed.values, listed.nulls);
  }
  state_finder_end(&finder);
  systable_endscan_ordered(scan);
  state_store_close(states, AccessShareLock);
  index_close(order, AccessShareLock);
  table_close(keys, AccessShareLock);
}

static int argument_minutes(FunctionCallInfo fcinfo, int number) {
  argument_require(fcinfo, number, "minutes");
  int minutes = PG_GETARG_INT32(number);
  if (minutes < 1 || minutes > keypool::kMinuteBuckets)
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("minutes must be between 1 and %d", keypool::kMinuteBuckets));
  return minutes;
}

// Checks the right to look at a key that the statement's snapshot sees, deleted since or not. False if it sees none.
static bool check_listed(const KeyId &id, Snapshot snapshot) {
  Relation keys = table_open(relations().provider_keys, AccessShareLock);
  ScanKeyData condition;
  ScanKeyInit(&condition, kKeysId, BTEqualStrategyNumber, F_UUID_EQ, key_id_datum(id));
  SysScanDesc scan = systable_beginscan(keys, relations().provider_keys_by_id, true, snapshot, 1, &condition);
  HeapTuple row = systable_getnext(scan);
  bool found = HeapTupleIsValid(row);
  if (found) {
    Datum values[kKeysColumns];
    bool nulls[kKeysColumns];
    read_provider_keys_row(row, RelationGetDescr(keys), values, nulls);
    privileges_require(Right::kMonitor, text_view(DatumGetTextPP(values[kKeysProvider - 1])));
  }
  systable_endscan(scan);
  table_close(keys, AccessShareLock);
  return found;
}

// The state of a key that keypool_list_keys would show in the same statement, so that the two can be joined; false if
// it would not.
static bool read_listed_state(const KeyId &id, KeyState *state) {
  Snapshot snapshot = GetActiveSnapshot();
  if (!check_listed(id, snapshot)) return false;
  Relation states = state_store_open(AccessShareLock);
  StateFinder finder = state_finder_begin(states, snapshot);
  copy_state(finder, id, state);
  state_finder_end(&finder);
  state_store_close(states, AccessShareLock);
  return true;
}

// The state of a key that is there now. Raises KP404 if it is not.
static KeyState read_state(const KeyId &id) {
  for (int attempt = 0;; ++attempt) {
    Relation relation;
    KeyReference key = key_access_open(id, Right::kMonitor, AccessShareLock, &relation);
    LockedState locked = state_store_lock(relation, key.address, id, BUFFER_LOCK_SHARE);
    KeyState copy;
    bool there = locked.state != nullptr;
    if (there) {
      copy = *locked.state;
      state_store_unlock(locked, false);
    }
    state_store_close(relation, AccessShareLock);
    if (there) return copy;
    pool_cache_retry(key.hash, attempt);
  }
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

PG_FUNCTION_INFO_V1(keypool_usage);
Datum keypool_usage(PG_FUNCTION_ARGS) {
  KeyId id = argument_key(fcinfo, 0);
  int minutes = argument_minutes(fcinfo, 1);
  InitMaterializedSRF(fcinfo, 0);
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  KeyState state;
  if (!read_listed_state(id, &state)) state = read_state(id);
  keypool::MinuteUse use[keypool::kMinuteBuckets];
  int count = keypool::UsageByMinute(state, minutes, clock_now(), use);
  for (int i = 0; i < count; ++i) {
    TimeUs start = TimeUs{use[i].minute} * 60 * keypool::kMicrosPerSecond;
    Datum values[] = {PG_GETARG_DATUM(0), TimestampTzGetDatum(clock_to_timestamptz(start)),
                      Int64GetDatum(use[i].requests), Int64GetDatum(use[i].tokens), Int64GetDatum(use[i].rate_limited)};
    bool nulls[lengthof(values)] = {};
    tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
  }
  return Datum{0};
}

}  // extern "C"
