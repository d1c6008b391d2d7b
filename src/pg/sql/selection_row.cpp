// selection_row.cpp - building the row of a selection.
#include "pg/sql/selection_row.h"

// Columns of the row, in order.
enum Column { kKeyId, kKeyValue, kLease, kLabel, kPriority, kMaxRpm, kMaxTpm, kStatus, kRetryAfterMs, kColumns };

static TupleDesc make_columns(void) {
  MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
  TupleDesc columns = CreateTemplateTupleDesc(kColumns);
  auto add = [&](Column column, const char *name, Oid type) {
    TupleDescInitEntry(columns, static_cast<AttrNumber>(column + 1), name, type, -1, 0);
  };
  add(kKeyId, "key_id", UUIDOID);
  add(kKeyValue, "key_value", TEXTOID);
  add(kLease, "lease", INT8OID);
  add(kLabel, "key_label", TEXTOID);
  add(kPriority, "priority", INT4OID);
  add(kMaxRpm, "max_rpm", INT8OID);
  add(kMaxTpm, "max_tpm", INT8OID);
  add(kStatus, "status", TEXTOID);
  add(kRetryAfterMs, "retry_after_ms", INT8OID);
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
    case SelectionStatus::kNoKey:
      return "no_key";
    case SelectionStatus::kTooLarge:
      return "too_large";
  }
  pg_unreachable();
}

Datum selection_row(const Selection &selection) {
  static TupleDesc columns = nullptr;
  static union {
    text header;
    char space[VARHDRSZ + 16];
  } status;  // so that it need not be allocated
  if (columns == nullptr) columns = make_columns();

  Datum values[kColumns] = {};
  bool nulls[kColumns];
  memset(nulls, true, sizeof(nulls));
  auto set = [&](Column column, Datum value) {
    values[column] = value;
    nulls[column] = false;
  };
  const char *name = selection_status_name(selection.status);
  SET_VARSIZE(&status, VARHDRSZ + strlen(name));
  memcpy(VARDATA(&status), name, strlen(name));
  set(kStatus, PointerGetDatum(&status));
  if (selection.retry_after_ms != kNoWait) set(kRetryAfterMs, Int64GetDatum(selection.retry_after_ms));
  if (selection.status == SelectionStatus::kOk) {
    set(kKeyId, PointerGetDatum(selection.id.bytes));
    set(kPriority, Int32GetDatum(selection.priority));
    if (selection.label != nullptr) set(kLabel, PointerGetDatum(selection.label));
    if (selection.limits.max_rpm != 0) set(kMaxRpm, Int64GetDatum(selection.limits.max_rpm));
    if (selection.limits.max_tpm != 0) set(kMaxTpm, Int64GetDatum(selection.limits.max_tpm));
  }
  if (selection.secret != nullptr) {
    set(kKeyValue, PointerGetDatum(selection.secret));
    set(kLease, Int64GetDatum(selection.lease));
  }
  return HeapTupleGetDatum(heap_form_tuple(columns, values, nulls));
}
