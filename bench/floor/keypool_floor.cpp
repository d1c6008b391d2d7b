// keypool_floor.cpp - the least that functions of keypool's shapes can cost.
//
// keypool_floor_select returns a row like keypool_select's and does nothing. keypool_floor_record writes one WAL record
// as long as keypool_record's and does nothing else. What keypool costs beyond them is what it does.
extern "C" {
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "replication/message.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

PG_MODULE_MAGIC;

static TupleDesc make_columns(void) {
  MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
  TupleDesc columns = CreateTemplateTupleDesc(13);
  TupleDescInitEntry(columns, 1, "key_id", UUIDOID, -1, 0);
  TupleDescInitEntry(columns, 2, "key_value", TEXTOID, -1, 0);
  TupleDescInitEntry(columns, 3, "lease", TEXTOID, -1, 0);
  TupleDescInitEntry(columns, 4, "key_label", TEXTOID, -1, 0);
  TupleDescInitEntry(columns, 5, "priority", INT4OID, -1, 0);
  TupleDescInitEntry(columns, 6, "max_rpm", INT8OID, -1, 0);
  TupleDescInitEntry(columns, 7, "max_tpm", INT8OID, -1, 0);
  TupleDescInitEntry(columns, 8, "status", TEXTOID, -1, 0);
  TupleDescInitEntry(columns, 9, "retry_after_ms", INT4OID, -1, 0);
  TupleDescInitEntry(columns, 10, "provider_id", TEXTOID, -1, 0);
  TupleDescInitEntry(columns, 11, "attributes", JSONBOID, -1, 0);
  TupleDescInitEntry(columns, 12, "blocked_by", TEXTOID, -1, 0);
  TupleDescInitEntry(columns, 13, "blocked_limit", TEXTOID, -1, 0);
  columns = BlessTupleDesc(columns);
  MemoryContextSwitchTo(before);
  return columns;
}

// A text datum that is there before the call, as a careful function would have it.
static text *constant_text(const char *value) {
  MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
  text *result = cstring_to_text(value);
  MemoryContextSwitchTo(before);
  return result;
}

PG_FUNCTION_INFO_V1(keypool_floor_select);
Datum keypool_floor_select(PG_FUNCTION_ARGS) {
  static TupleDesc columns = nullptr;
  static text *secret, *lease, *label, *ok;
  static pg_uuid_t id = {{0x7d, 0x31, 0x94, 0xf7}};
  if (columns == nullptr) {
    columns = make_columns();
    secret = constant_text("sk-bench-00000000000000000000000000000000000000000000");
    lease = constant_text("000000000000000000000000000000000000000000000");
    label = constant_text("bench 0");
    ok = constant_text("ok");
  }
  Datum values[] = {UUIDPGetDatum(&id),
                    PointerGetDatum(secret),
                    PointerGetDatum(lease),
                    PointerGetDatum(label),
                    Int32GetDatum(0),
                    Int64GetDatum(1000000000),
                    Int64GetDatum(0),
                    PointerGetDatum(ok),
                    Datum{0},
                    PG_GETARG_DATUM(0),
                    Datum{0},
                    Datum{0},
                    Datum{0}};
  bool nulls[] = {false, false, false, false, false, false, false, false, true, false, true, true, true};
  return HeapTupleGetDatum(heap_form_tuple(columns, values, nulls));
}

// The WAL record of keypool_record has some 111 bytes, as a message of this length makes.
static const char message[60] = {};

static void write_message(void) {
#if PG_VERSION_NUM >= 170000
  LogLogicalMessage("", message, sizeof(message), false, false);
#else
  LogLogicalMessage("", message, sizeof(message), false);
#endif
}

// Like keypool_record, it takes a transaction id if the session waits for the disk: COMMIT waits only if there is one.
PG_FUNCTION_INFO_V1(keypool_floor_record);
Datum keypool_floor_record(PG_FUNCTION_ARGS) {
  if (synchronous_commit > SYNCHRONOUS_COMMIT_OFF) GetTopTransactionId();
  write_message();
  PG_RETURN_BOOL(true);
}

// Marks a place in a trace.
PG_FUNCTION_INFO_V1(keypool_floor_mark);
Datum keypool_floor_mark(PG_FUNCTION_ARGS) { PG_RETURN_VOID(); }
}
