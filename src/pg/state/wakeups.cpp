// wakeups.cpp - the rings of posts, as rows that are changed in place.
#include "pg/state/wakeups.h"

#include "pg/catalog/relations.h"

// A row is its header, the ring's number, and the ring as a bytea of fixed size that is stored plain.
struct RingRow {
  int32 slot;
  char ring_header[VARHDRSZ];
  keypool::Ring ring;
};
static constexpr Size kHeaderSize = MAXALIGN(SizeofHeapTupleHeader);
static constexpr Size kRowSize = kHeaderSize + sizeof(RingRow);
static_assert(sizeof(RingRow) == 8 + sizeof(keypool::Ring));
static_assert(kHeaderSize % alignof(RingRow) == 0 && kRowSize <= MaxHeapTupleSize);

static constexpr int kRings = 8;  // as many as the install script makes

// Where the rings lie, as of a version of the relations; 0: not looked for yet. An address is invalid where there is no
// such row.
static struct {
  uint64 version;
  ItemPointerData addresses[kRings];
} known;

static void find_rings(Relation relation) {
  for (ItemPointerData &address : known.addresses) ItemPointerSetInvalid(&address);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, snapshot, 0, nullptr);
  while (HeapTuple row = systable_getnext(scan)) {
    bool is_null;
    int32 slot = DatumGetInt32(heap_getattr(row, kWakeupSlot, RelationGetDescr(relation), &is_null));
    bool is_ring = !is_null && slot >= 0 && slot < kRings && row->t_len == kRowSize;
    if (is_ring && !ItemPointerIsValid(&known.addresses[slot])) known.addresses[slot] = row->t_self;  // the first
  }
  systable_endscan(scan);
  UnregisterSnapshot(snapshot);
}

static RingRow *row_in_page(const Wakeups &ring) {
  Page page = BufferGetPage(ring.buffer);
  char *row = reinterpret_cast<char *>(PageGetItem(page, PageGetItemId(page, ring.offset)));
  return reinterpret_cast<RingRow *>(row + kHeaderSize);
}

// Whether a row lies there that is this ring, and that nobody has deleted.
static bool is_ring(const Wakeups &ring, int32 slot) {
  LockBuffer(ring.buffer, BUFFER_LOCK_SHARE);
  Page page = BufferGetPage(ring.buffer);
  bool there = ring.offset <= PageGetMaxOffsetNumber(page);
  if (there) {
    ItemId item = PageGetItemId(page, ring.offset);
    there = ItemIdIsNormal(item) && ItemIdGetLength(item) == kRowSize &&
            (reinterpret_cast<HeapTupleHeader>(PageGetItem(page, item))->t_infomask & HEAP_XMAX_INVALID) != 0 &&
            row_in_page(ring)->slot == slot;
  }
  LockBuffer(ring.buffer, BUFFER_LOCK_UNLOCK);
  return there;
}

// Pins the page of a ring; false if there is none where it was found last.
static bool pin_ring(Wakeups *ring, int32 slot) {
  const ItemPointerData &address = known.addresses[slot];
  if (known.version != relations_version() || !ItemPointerIsValid(&address)) return false;
  ring->buffer = ReadBuffer(ring->relation, ItemPointerGetBlockNumber(&address));
  ring->offset = ItemPointerGetOffsetNumber(&address);
  if (is_ring(*ring, slot)) return true;
  ReleaseBuffer(ring->buffer);
  return false;
}

Wakeups wakeups_open(uint32 provider_hash, LOCKMODE mode) {
  if (!OidIsValid(relations().wakeups)) return {};
  Wakeups ring = {table_open(relations().wakeups, mode), mode, InvalidBuffer, InvalidOffsetNumber};
  check_is_heap(ring.relation);
  int32 slot = static_cast<int32>(provider_hash % kRings);
  if (pin_ring(&ring, slot)) return ring;
  uint64 version = relations_version();
  find_rings(ring.relation);
  known.version = version;
  if (pin_ring(&ring, slot)) return ring;
  table_close(ring.relation, mode);
  return {};
}

void wakeups_close(Wakeups *ring) {
  if (!wakeups_is_open(*ring)) return;
  ReleaseBuffer(ring->buffer);
  table_close(ring->relation, ring->mode);
  *ring = {};
}

uint64 wakeups_posted(const Wakeups &ring) {
  LockBuffer(ring.buffer, BUFFER_LOCK_SHARE);
  uint64 posted = row_in_page(ring)->ring.posted;
  LockBuffer(ring.buffer, BUFFER_LOCK_UNLOCK);
  return posted;
}

uint32 wakeups_read(const Wakeups &ring, uint64 *seen, keypool::KeyId (&meters)[keypool::kRingPosts], bool *lost) {
  LockBuffer(ring.buffer, BUFFER_LOCK_SHARE);
  uint32 count = keypool::ReadPosts(row_in_page(ring)->ring, seen, meters, lost);
  LockBuffer(ring.buffer, BUFFER_LOCK_UNLOCK);
  return count;
}

void wakeups_post(const Wakeups &ring, const keypool::KeyId &meter) {
  if (!wakeups_is_open(ring)) return;
  LockBuffer(ring.buffer, BUFFER_LOCK_EXCLUSIVE);
  keypool::PostMeter(&row_in_page(ring)->ring, meter);
  MarkBufferDirtyHint(ring.buffer, true);
  LockBuffer(ring.buffer, BUFFER_LOCK_UNLOCK);
}
