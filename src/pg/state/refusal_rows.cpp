// refusal_rows.cpp - the rows of keypool.refusals, which are changed in place.
#include "pg/state/refusal_rows.h"

extern "C" {
#include "access/xact.h"
#include "storage/lmgr.h"
}

#include "pg/catalog/relations.h"

using keypool::RefusalCounts;

static text *name_datum(std::string_view provider) {
  return cstring_to_text_with_len(provider.data(), static_cast<int>(provider.size()));
}

// Where the row of a provider lies. The snapshot must keep it from being removed.
static bool find_row(Relation table, std::string_view provider, Snapshot snapshot, ItemPointer address) {
  ScanKeyData condition;
  ScanKeyInit(&condition, kRefusalsProvider, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(name_datum(provider)));
  SysScanDesc scan = systable_beginscan(table, relations().refusals_by_provider, true, snapshot, 1, &condition);
  HeapTuple row = systable_getnext(scan);
  if (HeapTupleIsValid(row)) *address = row->t_self;
  systable_endscan(scan);
  return HeapTupleIsValid(row);
}

// The counts in a page that is locked; null if there are none of the right size.
static char *counts_in_page(Relation table, Buffer buffer, const ItemPointerData &address) {
  Page page = BufferGetPage(buffer);
  ItemId item = PageGetItemId(page, ItemPointerGetOffsetNumber(&address));
  if (!ItemIdIsNormal(item)) return nullptr;
  HeapTupleData row;
  row.t_data = reinterpret_cast<HeapTupleHeader>(PageGetItem(page, item));
  row.t_len = ItemIdGetLength(item);
  row.t_self = address;
  row.t_tableOid = RelationGetRelid(table);
  bool is_null;
  Datum counts = heap_getattr(&row, kRefusalsCounts, RelationGetDescr(table), &is_null);
  auto *bytes = reinterpret_cast<varlena *>(DatumGetPointer(counts));
  if (is_null || !VARATT_IS_4B_U(bytes) || VARSIZE(bytes) != VARHDRSZ + sizeof(RefusalCounts)) return nullptr;
  return VARDATA(bytes);
}

void refusal_rows_add(std::string_view provider) {
  Relation table = table_open(relations().refusals, RowExclusiveLock);
  check_refusals(table);
  Snapshot snapshot = snapshot_of_now();
  ItemPointerData address;
  if (!find_row(table, provider, snapshot, &address)) {
    Datum values[] = {PointerGetDatum(name_datum(provider)),
                      PointerGetDatum(palloc0(VARHDRSZ + sizeof(RefusalCounts)))};
    SET_VARSIZE(DatumGetPointer(values[1]), VARHDRSZ + sizeof(RefusalCounts));
    bool nulls[lengthof(values)] = {};
    CatalogTupleInsert(table, heap_form_tuple(RelationGetDescr(table), values, nulls));
    CommandCounterIncrement();  // the next key of the same statement finds it
  }
  UnregisterSnapshot(snapshot);
  table_close(table, NoLock);
}

void refusal_rows_read(std::string_view provider, RefusalCounts *counts) {
  *counts = {};
  Relation table = table_open(relations().refusals, AccessShareLock);
  check_refusals(table);
  Snapshot snapshot = snapshot_of_now();
  ItemPointerData address;
  if (find_row(table, provider, snapshot, &address)) {
    Buffer buffer = ReadBuffer(table, ItemPointerGetBlockNumber(&address));
    LockBuffer(buffer, BUFFER_LOCK_SHARE);
    const char *found = counts_in_page(table, buffer, address);
    if (found != nullptr) memcpy(counts, found, sizeof(*counts));
    UnlockReleaseBuffer(buffer);
  }
  UnregisterSnapshot(snapshot);
  table_close(table, AccessShareLock);
}

static void add_in_page(Relation table, const ItemPointerData &address, const uint32_t (&refused)[keypool::kRefused],
                        keypool::TimeUs first_at, keypool::TimeUs now, bool *became_short) {
  Buffer buffer = ReadBuffer(table, ItemPointerGetBlockNumber(&address));
  LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
  char *found = counts_in_page(table, buffer, address);
  if (found != nullptr) {
    RefusalCounts counts;  // where they lie is not aligned for them
    memcpy(&counts, found, sizeof(counts));
    *became_short = keypool::AddRefusals(&counts, refused, first_at, now);
    memcpy(found, &counts, sizeof(counts));
    MarkBufferDirtyHint(buffer, true);
  }
  UnlockReleaseBuffer(buffer);
}

bool refusal_rows_post(std::string_view provider, const uint32_t (&refused)[keypool::kRefused],
                       keypool::TimeUs first_at, keypool::TimeUs now, bool *became_short) {
  *became_short = false;
  if (!ConditionalLockRelationOid(relations().refusals, RowExclusiveLock)) return false;
  Relation table = table_open(relations().refusals, NoLock);
  check_refusals(table);
  Snapshot snapshot = snapshot_of_now();
  ItemPointerData address;
  if (find_row(table, provider, snapshot, &address)) add_in_page(table, address, refused, first_at, now, became_short);
  UnregisterSnapshot(snapshot);
  table_close(table, RowExclusiveLock);
  return true;
}
