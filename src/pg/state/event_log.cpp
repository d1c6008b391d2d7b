// event_log.cpp - keypool.event_log: who changed what, and what went wrong.
#include "pg/state/event_log.h"

extern "C" {
#include "commands/async.h"
#include "commands/sequence.h"
}

#include "core/provider_name.h"
#include "pg/catalog/relations.h"
#include "pg/server/clock.h"
#include "pg/server/key_ids.h"
#include "pg/server/settings.h"

static constexpr int kMaxNoted = 8;
static constexpr int kFewEvents = 16;  // that may always be there

// An event of calls that is not written yet.
struct Noted {
  const char *event;
  char provider[keypool::kMaxProviderBytes];
  uint8 provider_length;
  bool has_subject;
  keypool::KeyId subject;
  const char *reason;
  keypool::TimeUs at;
};

static struct {
  int64 newest;  // that this transaction has written; 0: none
  int noted_count;
  Noted noted[kMaxNoted];
} session;

static Datum text_datum(std::string_view value) {
  return PointerGetDatum(cstring_to_text_with_len(value.data(), static_cast<int>(value.size())));
}

// Deletes what is older than the newest that are kept. Whoever else does the same at the moment is not waited for.
static void prune(Relation log, bool of_calls) {
  Relation index = index_open(relations().event_log_by_age, AccessShareLock);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  ScanKeyData condition;
  ScanKeyInit(&condition, kEventOfCalls, BTEqualStrategyNumber, F_BOOLEQ, BoolGetDatum(of_calls));
  SysScanDesc scan = systable_beginscan_ordered(log, index, snapshot, 1, &condition);
  for (int64 age = 0; HeapTuple row = systable_getnext_ordered(scan, BackwardScanDirection); ++age) {
    TM_FailureData failure;
    if (age >= keypool_keep_events)
      table_tuple_delete(log, &row->t_self, GetCurrentCommandId(true), snapshot, InvalidSnapshot, false, &failure,
                         false);
  }
  systable_endscan_ordered(scan);
  UnregisterSnapshot(snapshot);
  index_close(index, AccessShareLock);
}

struct EventRow {
  Datum values[kEventColumns];
  bool nulls[kEventColumns];

  void Set(AttrNumber column, Datum value) {
    values[column - 1] = value;
    nulls[column - 1] = false;
  }
};

// A role may have been dropped since the session has begun: then its number.
static Datum role_name(Oid role) {
  const char *name = GetUserNameFromId(role, true);
  return CStringGetTextDatum(name != nullptr ? name : psprintf("%u", role));
}

// A row with all that does not depend on the event.
static EventRow new_row(keypool::TimeUs at, bool of_calls, const char *event) {
  EventRow row;
  for (bool &is_null : row.nulls) is_null = true;
  row.Set(kEventAt, TimestampTzGetDatum(clock_to_timestamptz(at)));
  row.Set(kEventOfCalls, BoolGetDatum(of_calls));
  row.Set(kEventName, CStringGetTextDatum(event));
  row.Set(kEventRole, role_name(GetOuterUserId()));
  row.Set(kEventSessionRole, role_name(GetSessionUserId()));
  return row;
}

static void write_row(Relation log, EventRow *row) {
  session.newest = nextval_internal(relations().event_ids, false);
  row->Set(kEventId, Int64GetDatum(session.newest));
  HeapTuple tuple = heap_form_tuple(RelationGetDescr(log), row->values, row->nulls);
  CatalogTupleInsert(log, tuple);
  heap_freetuple(tuple);
  // To find the oldest that is kept reads all that are: so seldom enough to read each event a few times only.
  if (session.newest % Max(keypool_keep_events, kFewEvents) != 0) return;
  prune(log, false);
  prune(log, true);
}

void event_log_add(const ChangeEvent &change) {
  if (keypool_keep_events == 0) return;
  EventRow row = new_row(clock_now(), false, change.event);
  if (!change.provider.empty()) row.Set(kEventProvider, text_datum(change.provider));
  if (change.subject != nullptr) row.Set(kEventSubject, key_id_datum(*change.subject));
  if (!change.name.empty()) row.Set(kEventSubjectName, text_datum(change.name));
  if (change.details != nullptr) row.Set(kEventDetails, DirectFunctionCall1(jsonb_in, CStringGetDatum(change.details)));
  Relation log = table_open(relations().event_log, RowExclusiveLock);
  check_event_log(log);
  write_row(log, &row);
  table_close(log, NoLock);
}

void event_log_note(const CallEvent &happened) {
  if (keypool_keep_events == 0 || session.noted_count == kMaxNoted) return;
  Assert(happened.provider.size() <= keypool::kMaxProviderBytes);
  Noted *noted = &session.noted[session.noted_count++];
  *noted = {};
  noted->event = happened.event;
  memcpy(noted->provider, happened.provider.data(), happened.provider.size());
  noted->provider_length = static_cast<uint8>(happened.provider.size());
  noted->has_subject = happened.subject != nullptr;
  if (noted->has_subject) noted->subject = *happened.subject;
  noted->reason = happened.reason;
  noted->at = clock_now();
}

static void write_noted(Relation log, const Noted &noted) {
  EventRow row = new_row(noted.at, true, noted.event);
  row.Set(kEventProvider, text_datum({noted.provider, noted.provider_length}));
  if (noted.has_subject) row.Set(kEventSubject, key_id_datum(noted.subject));
  if (noted.reason != nullptr)
    row.Set(kEventDetails,
            DirectFunctionCall1(jsonb_in, CStringGetDatum(psprintf("{\"class\": \"%s\"}", noted.reason))));
  write_row(log, &row);
}

// Not while a statement that rewrites the log keeps it locked: the next COMMIT will do.
static void write_all_noted(void) {
  if (session.noted_count == 0 || XactReadOnly || RecoveryInProgress()) return;
  bool exists = OidIsValid(get_namespace_oid("keypool", true));
  if (exists && !ConditionalLockRelationOid(relations().event_log, RowExclusiveLock)) return;
  int count = session.noted_count;
  session.noted_count = 0;  // writing them may fail, and with it the COMMIT
  if (!exists) return;
  Relation log = table_open(relations().event_log, NoLock);
  check_event_log(log);
  PushActiveSnapshot(GetLatestSnapshot());  // a transaction that ends has none, and a row may have to be toasted
  for (int i = 0; i < count; ++i) write_noted(log, session.noted[i]);
  PopActiveSnapshot();
  table_close(log, NoLock);
}

// A transaction that is prepared must not notify.
static void on_transaction_end(XactEvent event, void *) {
  if (event == XACT_EVENT_PRE_COMMIT) {
    write_all_noted();
    if (session.newest != 0) Async_Notify("keypool", psprintf(INT64_FORMAT, session.newest));
  }
  if (event != XACT_EVENT_PRE_PREPARE) session.newest = 0;
}

void event_log_init(void) { RegisterXactCallback(on_transaction_end, nullptr); }
