// wakeups.cpp - telling every session which keys can serve sooner than it has seen.
#include "pg/state/wakeups.h"

#include <algorithm>

#include "pg/catalog/relations.h"

// A row is its header, the ring's number, and the ring as a bytea of fixed size that is stored plain.
struct RingRow {
  int32 slot;
  char ring_header[VARHDRSZ];
  uint64 posted;
  keypool::KeyId keys[kWakeupsRemembered];
};
static constexpr Size kHeaderSize = MAXALIGN(SizeofHeapTupleHeader);
static_assert(sizeof(RingRow) == 8 + 8 + kWakeupsRemembered * UUID_LEN);
static_assert(kHeaderSize + sizeof(RingRow) <= MaxHeapTupleSize);

static constexpr int kRings = 8;  // as many as the install script makes

static ItemPointerData addresses[kRings];  // invalid where there is no such row
static uint64 addresses_version = 0;

static void find_rings(Relation relation) {
  for (ItemPointerData &address : addresses) ItemPointerSetInvalid(&address);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, snapshot, 0, nullptr);
  while (HeapTuple row = systable_getnext(scan)) {
    bool is_null;
    int32 slot = DatumGetInt32(heap_getattr(row, kWakeupSlot, RelationGetDescr(relation), &is_null));
    bool known = !is_null && slot >= 0 && slot < kRings && row->t_len == kHeaderSize + sizeof(RingRow);
    if (known && !ItemPointerIsValid(&addresses[slot])) addresses[slot] = row->t_self;  // the first, for all sessions
  }
  systable_endscan(scan);
  UnregisterSnapshot(snapshot);
}

static RingRow *ring_in_page(const Wakeups &ring) {
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
    there = ItemIdIsNormal(item) && ItemIdGetLength(item) == kHeaderSize + sizeof(RingRow) &&
            (reinterpret_cast<HeapTupleHeader>(PageGetItem(page, item))->t_infomask & HEAP_XMAX_INVALID) != 0 &&
            ring_in_page(ring)->slot == slot;
  }
  LockBuffer(ring.buffer, BUFFER_LOCK_UNLOCK);
  return there;
}

// Pins the page of a ring; false if there is none where it was found last.
static bool pin_ring(Wakeups *ring, int32 slot) {
  const ItemPointerData &address = addresses[slot];
  if (addresses_version != relations_version() || !ItemPointerIsValid(&address)) return false;
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
  addresses_version = version;
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

uint64 wakeups_count(const Wakeups &ring) {
  LockBuffer(ring.buffer, BUFFER_LOCK_SHARE);
  uint64 posted = ring_in_page(ring)->posted;
  LockBuffer(ring.buffer, BUFFER_LOCK_UNLOCK);
  return posted;
}

uint64 wakeups_read(const Wakeups &ring, uint64 *seen, keypool::KeyId *keys) {
  LockBuffer(ring.buffer, BUFFER_LOCK_SHARE);
  const RingRow *row = ring_in_page(ring);
  uint64 posted = row->posted - *seen;
  for (uint64 i = 0; i < std::min<uint64>(posted, kWakeupsRemembered); ++i)
    keys[i] = row->keys[(*seen + i) % kWakeupsRemembered];
  *seen = row->posted;
  LockBuffer(ring.buffer, BUFFER_LOCK_UNLOCK);
  return posted;
}

void wakeups_post(const Wakeups &ring, const keypool::KeyId &key) {
  if (!wakeups_is_open(ring)) return;
  LockBuffer(ring.buffer, BUFFER_LOCK_EXCLUSIVE);
  RingRow *row = ring_in_page(ring);
  row->keys[row->posted++ % kWakeupsRemembered] = key;
  MarkBufferDirtyHint(ring.buffer, true);
  LockBuffer(ring.buffer, BUFFER_LOCK_UNLOCK);
}
