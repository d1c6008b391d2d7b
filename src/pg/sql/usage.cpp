// usage.cpp - keypool_usage and keypool_provider_usage: what was used, by minute, hour or day.
#include "core/quota/usage.h"

#include "pg/catalog/privileges.h"
#include "pg/catalog/relations.h"
#include "pg/pool/call_meters.h"
#include "pg/pool/limit_columns.h"
#include "pg/pool/pool_cache.h"
#include "pg/server/arguments.h"
#include "pg/server/clock.h"
#include "pg/server/key_ids.h"
#include "pg/server/report.h"
#include "pg/sql/listing.h"
#include "pg/sql/provider_pools.h"
#include "pg/state/refusal_rows.h"

using keypool::KeyId;
using keypool::Limits;
using keypool::Meter;
using keypool::Span;
using keypool::TimeUs;
using keypool::UsageSlot;

static Span argument_span(FunctionCallInfo fcinfo, int number, Span by_default) {
  std::string_view name = argument_text(fcinfo, number);
  if (name.empty()) return by_default;
  if (name == "minute") return Span::kMinute;
  if (name == "hour") return Span::kHour;
  if (name == "day") return Span::kDay;
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("by must be minute, hour or day"));
  pg_unreachable();
}

static int argument_minutes(FunctionCallInfo fcinfo, int number) {
  argument_require(fcinfo, number, "minutes");
  int minutes = PG_GETARG_INT32(number);
  if (minutes < 1 || minutes > keypool::kMinuteSlots)
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("minutes must be between 1 and %d", keypool::kMinuteSlots));
  return minutes;
}

// A key or a quota, its limits, and its meter.
struct UsedBy {
  Limits limits;
  Meter meter;
};

// What the row of a key or a quota says.
struct ListedRow {
  std::string_view provider;
  Limits limits;
};

template <int Columns>
static void read_listed_row(HeapTuple row, TupleDesc columns, LimitsOf table,
                            void (*read)(HeapTuple, TupleDesc, Datum (&)[Columns], bool (&)[Columns]),
                            AttrNumber provider, ListedRow *listed) {
  Datum values[Columns];
  bool nulls[Columns];
  read(row, columns, values, nulls);
  listed->provider = text_view(DatumGetTextPCopy(values[provider - 1]));
  listed->limits = limits_of_row(table, values, nulls);
  privileges_require(Right::kMonitor, listed->provider);
}

// Reads the row that the statement's snapshot sees, deleted since or not; false if it sees none. Raises if the user may
// not look at the provider.
static bool find_listed(MeterKind kind, const KeyId &id, ListedRow *listed) {
  bool is_key = kind == MeterKind::kKey;
  Relation table = table_open(is_key ? relations().provider_keys : relations().quotas, AccessShareLock);
  ScanKeyData condition;
  ScanKeyInit(&condition, is_key ? AttrNumber{kKeysId} : AttrNumber{kQuotasId}, BTEqualStrategyNumber, F_UUID_EQ,
              key_id_datum(id));
  Oid by_id = is_key ? relations().provider_keys_by_id : relations().quotas_by_id;
  SysScanDesc scan = systable_beginscan(table, by_id, true, GetActiveSnapshot(), 1, &condition);
  HeapTuple row = systable_getnext(scan);
  bool found = HeapTupleIsValid(row);
  if (found && is_key)
    read_listed_row(row, RelationGetDescr(table), LimitsOf::kKeys, read_provider_keys_row, kKeysProvider, listed);
  else if (found)
    read_listed_row(row, RelationGetDescr(table), LimitsOf::kQuotas, read_quotas_row, kQuotasProvider, listed);
  systable_endscan(scan);
  table_close(table, AccessShareLock);
  return found;
}

// What keypool_list_keys or keypool_list_quotas would show in the same statement, so that the two can be joined; false
// if they would not.
static bool read_listed(MeterKind kind, const KeyId &id, TimeUs now, UsedBy *by) {
  ListedRow listed;
  if (!find_listed(kind, id, &listed)) return false;
  Relation meters = meter_table_open(kind, AccessShareLock);
  MeterFinder finder = meter_finder_begin(kind, meters, GetActiveSnapshot());
  copy_listed_meter(finder, id, listed.provider, now, &by->meter);
  meter_finder_end(&finder);
  table_close(meters, AccessShareLock);
  by->limits = listed.limits;
  return true;
}

// Copies the meter at a key's place; false if it is no longer there.
static bool copy_from_place(const MeterTables &tables, MeterPlace *place, Meter *copy) {
  Meters meters = {};
  if (!meters_pin_key(tables, place, &meters) || !meters_lock(&meters, BUFFER_LOCK_SHARE)) return false;
  *copy = *meters.meter[0];
  meters_unlock(&meters, false);
  return true;
}

// A key that is there now. Raises KP404 if it is not.
static void read_present(const KeyId &id, UsedBy *by) {
  for (int attempt = 0;; ++attempt) {
    KeyReference key;
    MeterTables tables;
    if (!pool_cache_open_key(id, AccessShareLock, &key, &tables)) report_unknown_key();
    privileges_require(Right::kMonitor, key.pool->provider);
    by->limits = *key.limits;
    bool there = copy_from_place(tables, key.place, &by->meter);
    meter_tables_close(tables);
    if (there) return;
    pool_cache_retry(key.pool->hash, attempt);
  }
}

static Datum start_of(const UsageSlot &use, Span span) {
  TimeUs start = use.number * keypool::SpanSeconds(span) * keypool::kMicrosPerSecond;
  return TimestampTzGetDatum(clock_to_timestamptz(start));
}

// Columns of both functions, in order; refusals are a provider's only.
enum UsageColumn {
  kOf,
  kBeginsAt,
  kRequests,
  kTokens,
  kRateLimited,
  kPeakPercent,
  kFirstRefused,
  kUsageColumns = kFirstRefused + keypool::kRefused
};

static void put_usage(ReturnSetInfo *result, Datum of, const UsageSlot &use, Span span, int64 peak_percent,
                      const keypool::RefusalSlot *refused) {
  Datum values[kUsageColumns] = {of,
                                 start_of(use, span),
                                 Int64GetDatum(use.requests),
                                 Int64GetDatum(use.tokens),
                                 Int64GetDatum(use.rate_limited),
                                 Int64GetDatum(peak_percent)};
  bool nulls[kUsageColumns] = {};
  nulls[kPeakPercent] = peak_percent < 0;
  for (int i = 0; i < keypool::kRefused; ++i) {
    nulls[kFirstRefused + i] = refused == nullptr;
    if (refused != nullptr) values[kFirstRefused + i] = Int64GetDatum(refused->counts[i]);
  }
  tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

// Minutes, hours or days of a provider, by how long ago they were.
struct ProviderUsage {
  UsageSlot use[keypool::kMaxUsage];  // number 0: nothing came
  keypool::RefusalSlot refused[keypool::kMaxUsage];
  int64 peak_percent[keypool::kMaxUsage];
};

static uint32 current_number(Span span, TimeUs now) {
  return static_cast<uint32>(keypool::SecondOf(now) / keypool::SpanSeconds(span));
}

// Quotas count what keys count already: of them only how much of the limits was used.
static void add_meter(ProviderUsage *sum, const Meter &meter, const Limits &limits, bool counts, Span span,
                      TimeUs now) {
  UsageSlot use[keypool::kMaxUsage];
  int count = keypool::UsageBy(meter, span, keypool::SpanCount(span), now, use);
  for (int i = 0; i < count; ++i) {
    uint32 age = current_number(span, now) - use[i].number;
    if (age >= static_cast<uint32>(keypool::SpanCount(span))) continue;  // the meter's own clock is ahead
    if (counts) keypool::AddUsage(&sum->use[age], use[i]);
    sum->use[age].number = use[i].number;
    sum->peak_percent[age] = Max(sum->peak_percent[age], keypool::PeakPercent(use[i], span, limits));
  }
}

// False if the pool shows what has changed.
static bool add_meters(const ShownPool &shown, Span span, TimeUs now, ProviderUsage *sum) {
  Pool *pool = shown.pool;
  int keys = pool->has_keys ? pool->count : 0;
  for (int i = 0; i < keys + pool->rules->quota_count; ++i) {
    CHECK_FOR_INTERRUPTS();
    PoolQuota *quota = i < keys ? nullptr : &pool->rules->quotas[i - keys];
    CallMeters call = quota != nullptr ? call_meters_of_quota(quota, pool->rules)
                                       : call_meters_of_key(&pool->keys[i].place, pool->keys[i].limits, pool->rules);
    Meter meter;
    if (!call_meters_copy(shown.tables, &call, now, &meter)) return false;
    add_meter(sum, meter, *call.limits[0], quota == nullptr, span, now);
  }
  return true;
}

static bool has_refused(const keypool::RefusalSlot &slot) {
  uint32 any = 0;
  for (uint32 count : slot.counts) any |= count;
  return any != 0;
}

// Refusals are not kept by minute.
static void add_refusals(std::string_view provider, Span span, TimeUs now, ProviderUsage *sum) {
  if (span == Span::kMinute) return;
  keypool::RefusalCounts counts;
  refusal_rows_read(provider, &counts);
  for (int age = 0; age < keypool::SpanCount(span); ++age) {
    uint32 number = current_number(span, now) - static_cast<uint32>(age);
    sum->refused[age] =
        span == Span::kHour ? keypool::RefusedInHour(counts, number) : keypool::RefusedInDay(counts, number);
    if (has_refused(sum->refused[age])) sum->use[age].number = number;
  }
}

static bool put_provider_usage(ReturnSetInfo *result, text *provider, const ShownPool &shown, Span span) {
  TimeUs now = clock_now();
  ProviderUsage sum = {};
  for (int64 &percent : sum.peak_percent) percent = -1;
  if (!add_meters(shown, span, now, &sum)) return false;
  add_refusals(text_view(provider), span, now, &sum);
  for (int age = 0; age < keypool::SpanCount(span); ++age)
    if (sum.use[age].number != 0)
      put_usage(result, PointerGetDatum(provider), sum.use[age], span, sum.peak_percent[age],
                span == Span::kMinute ? nullptr : &sum.refused[age]);
  return true;
}

template <Span span>
static bool put_provider_usage_by(ReturnSetInfo *result, text *provider, const ShownPool &shown) {
  return put_provider_usage(result, provider, shown, span);
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_usage);
Datum keypool_usage(PG_FUNCTION_ARGS) {
  KeyId id = argument_key(fcinfo, 0);
  Span span = argument_span(fcinfo, 2, Span::kMinute);
  int count = span == Span::kMinute ? argument_minutes(fcinfo, 1) : keypool::SpanCount(span);
  InitMaterializedSRF(fcinfo, 0);
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  TimeUs now = clock_now();
  UsedBy by;
  if (!read_listed(MeterKind::kKey, id, now, &by) && !read_listed(MeterKind::kQuota, id, now, &by))
    read_present(id, &by);
  UsageSlot use[keypool::kMaxUsage];
  count = keypool::UsageBy(by.meter, span, count, now, use);
  for (int i = 0; i < count; ++i)
    put_usage(result, PG_GETARG_DATUM(0), use[i], span, keypool::PeakPercent(use[i], span, by.limits), nullptr);
  return Datum{0};
}

PG_FUNCTION_INFO_V1(keypool_provider_usage);
Datum keypool_provider_usage(PG_FUNCTION_ARGS) {
  switch (argument_span(fcinfo, 1, Span::kHour)) {
    case Span::kMinute:
      return show_providers(fcinfo, put_provider_usage_by<Span::kMinute>);
    case Span::kHour:
      return show_providers(fcinfo, put_provider_usage_by<Span::kHour>);
    default:
      return show_providers(fcinfo, put_provider_usage_by<Span::kDay>);
  }
}

}  // extern "C"
