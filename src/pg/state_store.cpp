// state_store.cpp - the rows of keypool.key_state, read and changed in place.
#include "pg/state_store.h"

#include "pg/relations.h"

// A row is its header, the key's id, and the state: all fixed in width and never null.
static constexpr Size kHeaderSize = MAXALIGN(SizeofHeapTupleHeader);
static constexpr Size kRowSize = kHeaderSize + UUID_LEN + sizeof(keypool::KeyState);
static_assert(sizeof(keypool::KeyId) == UUID_LEN);
static_assert((kHeaderSize + UUID_LEN) % alignof(keypool::KeyState) == 0);

Relation state_store_open(LOCKMODE mode) { return table_open(relations().key_state, mode); }
void state_store_close(Relation relation, LOCKMODE mode) { table_close(relation, mode); }

StateFinder state_finder_begin(Relation relation, Snapshot snapshot) {
  Relation index = index_open(relations().key_state_by_key, AccessShareLock);
  return {index, begin_index_scan(relation, index, snapshot), table_slot_create(relation, nullptr)};
}

bool state_finder_find(const StateFinder &finder, const keypool::KeyId &key, ItemPointer address) {
  ScanKeyData condition;
  ScanKeyInit(&condition, kStateKeyId, BTEqualStrategyNumber, F_UUID_EQ, PointerGetDatum(key.bytes));
  index_rescan(finder.scan, &condition, 1, nullptr, 0);
  if (!index_getnext_slot(finder.scan, ForwardScanDirection, finder.row)) return false;
  *address = finder.row->tts_tid;
  ExecClearTuple(finder.row);
  return true;
}

void state_finder_end(StateFinder *finder) {
  ExecDropSingleTupleTableSlot(finder->row);
  index_endscan(finder->scan);
  index_close(finder->index, AccessShareLock);
}

// The state at an address in a page that is pinned, or null if it does not hold this key.
static keypool::KeyState *find_state(Buffer buffer, const ItemPointerData &address, const keypool::KeyId &key) {
  Page page = BufferGetPage(buffer);
  OffsetNumber offset = ItemPointerGetOffsetNumber(&address);
  if (offset > PageGetMaxOffsetNumber(page)) return nullptr;
  ItemId item = PageGetItemId(page, offset);
  if (!ItemIdIsNormal(item) || ItemIdGetLength(item) != kRowSize) return nullptr;
  char *row = reinterpret_cast<char *>(PageGetItem(page, item)) + kHeaderSize;
  if (memcmp(row, key.bytes, UUID_LEN) != 0) return nullptr;
  auto *state = reinterpret_cast<keypool::KeyState *>(row + UUID_LEN);
  return state->layout == keypool::kLayout ? state : nullptr;
}

LockedState state_store_lock(Relation relation, const ItemPointerData &address, const keypool::KeyId &key, int mode) {
  Buffer buffer = ReadBuffer(relation, ItemPointerGetBlockNumber(&address));
  LockBuffer(buffer, mode);
  LockedState locked = {buffer, find_state(buffer, address, key)};
  if (locked.state == nullptr) UnlockReleaseBuffer(buffer);
  return locked;
}

// Pins the page of a row. Looking a buffer up counts as a use of it, which keeps it in memory; this may not, but every
// record does.
static Buffer pin_recent(Relation relation, const ItemPointerData &address, Buffer recent) {
  BlockNumber block = ItemPointerGetBlockNumber(&address);
  return BufferIsValid(recent) && read_recent_buffer(relation, block, recent) ? recent : ReadBuffer(relation, block);
}

// Waits for the lock of a row's buffer while somebody has it, as long as the key is not granted meanwhile. A lock is
// held for less than a microsecond, and most who hold one grant the key: to sleep until it is free would take longer,
// and be in vain. False if the key was granted.
static bool lock_unless_granted(Buffer buffer, int mode, const keypool::KeyState *state, int64 since,
                                int64 *last_grant) {
  static constexpr int kTries = 100;
  for (int i = 0; i < kTries; ++i) {
    *last_grant = __atomic_load_n(&state->reserved.last_grant, __ATOMIC_RELAXED);
    if (*last_grant > since) return false;
    if (mode == BUFFER_LOCK_SHARE) break;
    if (ConditionalLockBuffer(buffer)) return true;
    SPIN_DELAY();
  }
  LockBuffer(buffer, mode);
  return true;
}

LockedState state_store_lock_unless_granted(Relation relation, const ItemPointerData &address,
                                            const keypool::KeyId &key, int mode, int64 since, Buffer *recent,
                                            int64 *last_grant) {
  Buffer buffer = *recent = pin_recent(relation, address, *recent);
  *last_grant = -1;
  keypool::KeyState *state = find_state(buffer, address, key);
  if (state == nullptr || !lock_unless_granted(buffer, mode, state, since, last_grant)) {
    ReleaseBuffer(buffer);
    return {};
  }
  // Nothing moves in a page that is pinned, but the row may have been taken away.
  LockedState locked = {buffer, find_state(buffer, address, key)};
  *last_grant = locked.state == nullptr ? -1 : locked.state->reserved.last_grant;
  if (locked.state != nullptr && *last_grant <= since) return locked;
  UnlockReleaseBuffer(buffer);
  return {};
}

void state_store_unlock(const LockedState &locked, bool changed) {
  if (changed) MarkBufferDirtyHint(locked.buffer, true);
  UnlockReleaseBuffer(locked.buffer);
}
