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

bool state_store_find(Relation relation, const keypool::KeyId &key, Snapshot snapshot, ItemPointer address) {
  ScanKeyData condition;
  ScanKeyInit(&condition, kStateKeyId, BTEqualStrategyNumber, F_UUID_EQ, PointerGetDatum(key.bytes));
  SysScanDesc scan = systable_beginscan(relation, relations().key_state_by_key, true, snapshot, 1, &condition);
  HeapTuple row = systable_getnext(scan);
  bool found = HeapTupleIsValid(row);
  if (found) *address = row->t_self;
  systable_endscan(scan);
  return found;
}

keypool::KeyState *state_store_in_page(Page page, OffsetNumber offset, const keypool::KeyId &key) {
  if (offset > PageGetMaxOffsetNumber(page)) return nullptr;
  ItemId item = PageGetItemId(page, offset);
  if (!ItemIdIsNormal(item) || ItemIdGetLength(item) != kRowSize) return nullptr;
  char *row = reinterpret_cast<char *>(PageGetItem(page, item)) + kHeaderSize;
  if (memcmp(row, key.bytes, UUID_LEN) != 0) return nullptr;
  auto *state = reinterpret_cast<keypool::KeyState *>(row + UUID_LEN);
  return state->layout == keypool::kLayout ? state : nullptr;
}

LockedState state_store_lock(Relation relation, const ItemPointerData &address, const keypool::KeyId &key, int mode) {
  LockedState locked = {ReadBuffer(relation, ItemPointerGetBlockNumber(&address)), nullptr};
  LockBuffer(locked.buffer, mode);
  locked.state = state_store_in_page(BufferGetPage(locked.buffer), ItemPointerGetOffsetNumber(&address), key);
  if (locked.state == nullptr) UnlockReleaseBuffer(locked.buffer);
  return locked;
}

void state_store_unlock(const LockedState &locked, bool changed) {
  if (changed) MarkBufferDirtyHint(locked.buffer, true);
  UnlockReleaseBuffer(locked.buffer);
}
