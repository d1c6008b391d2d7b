// wakeup_rows.cpp - the rows of keypool.wakeups, which are changed in place.
#include "pg/state/wakeup_rows.h"

#include "pg/catalog/relations.h"

// A row is its header, its number, and a bytea of fixed size that is stored plain.
struct RowBody {
  int32 slot;
  char content_header[VARHDRSZ];
  char content[kWakeupContent];
};
static constexpr Size kHeaderSize = MAXALIGN(SizeofHeapTupleHeader);
static constexpr Size kRowSize = kHeaderSize + sizeof(RowBody);
static_assert(sizeof(RowBody) == 8 + kWakeupContent && (kHeaderSize + offsetof(RowBody, content)) % 8 == 0);
static_assert(kRowSize <= MaxHeapTupleSize);

// Where the rows lie, as of a version of the relations; 0: not looked for yet. An address is invalid where there is no
// such row.
static struct {
  uint64 version;
  ItemPointerData addresses[kWakeupRows];
} known;

static void find_rows(Relation relation) {
  for (ItemPointerData &address : known.addresses) ItemPointerSetInvalid(&address);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, snapshot, 0, nullptr);
  while (HeapTuple row = systable_getnext(scan)) {
    bool is_null;
    int32 slot = DatumGetInt32(heap_getattr(row, kWakeupSlot, RelationGetDescr(relation), &is_null));
    bool is_one = !is_null && slot >= 0 && slot < kWakeupRows && row->t_len == kRowSize;
    if (is_one && !ItemPointerIsValid(&known.addresses[slot])) known.addresses[slot] = row->t_self;  // the first
  }
  systable_endscan(scan);
  UnregisterSnapshot(snapshot);
}

static RowBody *body_in_page(const WakeupRow &row) {
  Page page = BufferGetPage(row.buffer);
  char *start = reinterpret_cast<char *>(PageGetItem(page, PageGetItemId(page, row.offset)));
  return reinterpret_cast<RowBody *>(start + kHeaderSize);
}

// Whether a row lies there that is this one, and that nobody has deleted.
static bool is_row(const WakeupRow &row, int32 slot) {
  LockBuffer(row.buffer, BUFFER_LOCK_SHARE);
  Page page = BufferGetPage(row.buffer);
  bool there = row.offset <= PageGetMaxOffsetNumber(page);
  if (there) {
    ItemId item = PageGetItemId(page, row.offset);
    there = ItemIdIsNormal(item) && ItemIdGetLength(item) == kRowSize &&
            (reinterpret_cast<HeapTupleHeader>(PageGetItem(page, item))->t_infomask & HEAP_XMAX_INVALID) != 0 &&
            body_in_page(row)->slot == slot;
  }
  LockBuffer(row.buffer, BUFFER_LOCK_UNLOCK);
  return there;
}

// Pins the page of a row; false if there is none where it was found last.
static bool pin_row(WakeupRow *row, int32 slot) {
  const ItemPointerData &address = known.addresses[slot];
  if (known.version != relations_version() || !ItemPointerIsValid(&address)) return false;
  row->buffer = ReadBuffer(row->relation, ItemPointerGetBlockNumber(&address));
  row->offset = ItemPointerGetOffsetNumber(&address);
  if (is_row(*row, slot)) return true;
  ReleaseBuffer(row->buffer);
  return false;
}

WakeupRow wakeup_row_open(int32 slot, LOCKMODE mode) {
  Assert(slot >= 0 && slot < kWakeupRows);
  if (!OidIsValid(relations().wakeups)) return {};
  WakeupRow row = {table_open(relations().wakeups, mode), mode, InvalidBuffer, InvalidOffsetNumber};
  check_is_heap(row.relation);
  if (pin_row(&row, slot)) return row;
  uint64 version = relations_version();
  find_rows(row.relation);
  known.version = version;
  if (pin_row(&row, slot)) return row;
  table_close(row.relation, mode);
  return {};
}

void wakeup_row_close(WakeupRow *row) {
  if (!wakeup_row_is_open(*row)) return;
  ReleaseBuffer(row->buffer);
  table_close(row->relation, row->mode);
  *row = {};
}

void *wakeup_row_content(const WakeupRow &row) { return body_in_page(row)->content; }
