// selection_row.cpp - building the row of a selection.
#include "pg/sql/selection_row.h"

#include "pg/server/clock.h"

using keypool::Obstacle;

// Columns of the row, in order.
enum Column {
  kKeyId,
  kKeyValue,
  kLease,
  kLabel,
  kPriority,
  kMaxRpm,
  kMaxTpm,
  kStatus,
  kRetryAfterMs,
  kProvider,
  kAttributes,
  kBlockedBy,
  kBlockedLimit,
  kColumns
};

static TupleDesc make_columns(void) {
  MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
  TupleDesc columns = CreateTemplateTupleDesc(kColumns);
  auto add = [&](Column column, const char *name, Oid type) {
    TupleDescInitEntry(columns, static_cast<AttrNumber>(column + 1), name, type, -1, 0);
  };
  add(kKeyId, "key_id", UUIDOID);
  add(kKeyValue, "key_value", TEXTOID);
  add(kLease, "lease", TEXTOID);
  add(kLabel, "key_label", TEXTOID);
  add(kPriority, "priority", INT4OID);
  add(kMaxRpm, "max_rpm", INT8OID);
  add(kMaxTpm, "max_tpm", INT8OID);
  add(kStatus, "status", TEXTOID);
  add(kRetryAfterMs, "retry_after_ms", INT4OID);
  add(kProvider, "provider_id", TEXTOID);
  add(kAttributes, "attributes", JSONBOID);
  add(kBlockedBy, "blocked_by", TEXTOID);
  add(kBlockedLimit, "blocked_limit", TEXTOID);
  columns = BlessTupleDesc(columns);
  MemoryContextSwitchTo(before);
  return columns;
}

const char *selection_status_name(SelectionStatus status) {
  switch (status) {
    case SelectionStatus::kOk:
      return "ok";
    case SelectionStatus::kCooling:
      return "cooling";
    case SelectionStatus::kLimited:
      return "limited";
    case SelectionStatus::kBusy:
      return "busy";
    case SelectionStatus::kNoKey:
      return "no_key";
    case SelectionStatus::kTooLarge:
      return "too_large";
  }
  pg_unreachable();
}

int64 milliseconds_until(keypool::TimeUs moment, keypool::TimeUs now) {
  if (moment <= now) return 1;
  keypool::TimeUs wait = Min(moment - now, int64{PG_INT32_MAX} * 1000);
  return (wait + 999) / 1000;
}

// The name of what is in the way: that of a limit's column, `cooldown` or `breaker`.
static const char *obstacle_name(Obstacle obstacle, keypool::Limit limit) {
  switch (obstacle) {
    case Obstacle::kCooldown:
      return "cooldown";
    case Obstacle::kBreaker:
      return "breaker";
    case Obstacle::kLimit:
      return keypool::LimitName(limit);
    case Obstacle::kFullSlot:
      return keypool::LimitName(keypool::Limit::kTpm);
    case Obstacle::kNone:
      break;
  }
  pg_unreachable();
}

static SelectionStatus status_of(Obstacle obstacle, keypool::Limit limit) {
  if (obstacle == Obstacle::kCooldown || obstacle == Obstacle::kBreaker) return SelectionStatus::kCooling;
  bool busy = obstacle == Obstacle::kLimit && limit == keypool::Limit::kInFlight;
  return busy ? SelectionStatus::kBusy : SelectionStatus::kLimited;
}

void selection_wait(Selection *answer, Obstacle obstacle, keypool::Limit limit, keypool::TimeUs moment,
                    const PoolQuota *quota) {
  keypool::TimeUs now = clock_now();
  answer->status = status_of(obstacle, limit);
  // A meter's own time may be ahead of the clock, but whoever settles a call lives by the clock.
  if (answer->status == SelectionStatus::kBusy) moment = Min(moment, now + keypool::kLongestGuess);
  answer->retry_after_ms = milliseconds_until(moment, now);
  answer->blocked_by = quota != nullptr ? quota->name : std::string_view("key");
  answer->blocked_limit = obstacle_name(obstacle, limit);
}

// Text that need not be allocated.
template <size_t Size>
struct FixedText {
  alignas(int32) char bytes[VARHDRSZ + Size];
};

// Fills a text, which then is what the row is formed from.
template <size_t Size>
static Datum fill(FixedText<Size> *to, std::string_view value) {
  Assert(value.size() <= Size);
  SET_VARSIZE(to->bytes, VARHDRSZ + value.size());
  memcpy(VARDATA(to->bytes), value.data(), value.size());
  return PointerGetDatum(to->bytes);
}

// A row, and texts in it.
struct Row {
  Datum values[kColumns];
  bool nulls[kColumns];
  FixedText<16> status;
  FixedText<keypool::kLeaseSize> lease;

  void Set(Column column, Datum value) {
    values[column] = value;
    nulls[column] = false;
  }
};

static void set_key(Row *row, const PoolKey &key, bool shows_attributes) {
  row->Set(kKeyId, PointerGetDatum(key.place.id.bytes));
  row->Set(kPriority, Int32GetDatum(key.priority));
  if (key.label != nullptr) row->Set(kLabel, PointerGetDatum(key.label));
  if (key.limits->of(keypool::Limit::kRpm) != 0) row->Set(kMaxRpm, Int64GetDatum(key.limits->of(keypool::Limit::kRpm)));
  if (key.limits->of(keypool::Limit::kTpm) != 0) row->Set(kMaxTpm, Int64GetDatum(key.limits->of(keypool::Limit::kTpm)));
  if (shows_attributes && key.attributes != nullptr) row->Set(kAttributes, PointerGetDatum(key.attributes));
}

static void set_refusal(Row *row, const Selection &answer) {
  if (answer.retry_after_ms != kNoWait)
    row->Set(kRetryAfterMs, Int32GetDatum(static_cast<int32>(answer.retry_after_ms)));
  if (!answer.blocked_by.empty()) {
    int size = static_cast<int>(answer.blocked_by.size());
    row->Set(kBlockedBy, PointerGetDatum(cstring_to_text_with_len(answer.blocked_by.data(), size)));
  }
  if (answer.blocked_limit != nullptr) row->Set(kBlockedLimit, CStringGetTextDatum(answer.blocked_limit));
}

static void make_row(const Selection &answer, Row *row) {
  memset(row->values, 0, sizeof(row->values));
  memset(row->nulls, true, sizeof(row->nulls));
  row->Set(kStatus, fill(&row->status, selection_status_name(answer.status)));
  row->Set(kProvider, PointerGetDatum(answer.provider));
  if (answer.key != nullptr) set_key(row, *answer.key, answer.shows_attributes);
  if (answer.status != SelectionStatus::kOk) set_refusal(row, answer);
  if (answer.secret != nullptr) {
    row->Set(kKeyValue, PointerGetDatum(answer.secret));
    row->Set(kLease, fill(&row->lease, std::string_view(answer.lease, sizeof(answer.lease))));
  }
}

Datum selection_row(const Selection &answer) {
  static TupleDesc columns = nullptr;
  if (columns == nullptr) columns = make_columns();
  Row row;
  make_row(answer, &row);
  return HeapTupleGetDatum(heap_form_tuple(columns, row.values, row.nulls));
}

void selection_put(ReturnSetInfo *result, const Selection &answer) {
  Row row;
  make_row(answer, &row);
  tuplestore_putvalues(result->setResult, result->setDesc, row.values, row.nulls);
}

ReturnSetInfo *selection_set_begin(FunctionCallInfo fcinfo) {
  InitMaterializedSRF(fcinfo, 0);
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  MemoryContext before = MemoryContextSwitchTo(result->econtext->ecxt_per_query_memory);
  tuplestore_end(result->setResult);
  bool random = (result->allowedModes & SFRM_Materialize_Random) != 0;
  result->setResult = tuplestore_begin_heap(random, false, MAX_KILOBYTES);
  MemoryContextSwitchTo(before);
  return result;
}
