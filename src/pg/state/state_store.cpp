// state_store.cpp - the rows of keypool.key_state, read and changed in place.
#include "pg/state/state_store.h"

extern "C" {
#include "access/heapam.h"
#include "nodes/execnodes.h"
}

#include "pg/catalog/relations.h"
#include "pg/server/key_ids.h"

// A row is its header, the key's id, and the state: all fixed in width and never null.
static constexpr Size kHeaderSize = MAXALIGN(SizeofHeapTupleHeader);
static constexpr Size kRowSize = kHeaderSize + UUID_LEN + sizeof(keypool::KeyState);
static_assert(sizeof(keypool::KeyId) == UUID_LEN);
static_assert((kHeaderSize + UUID_LEN) % alignof(keypool::KeyState) == 0);

Relation state_store_open(LOCKMODE mode) {
  Relation relation = table_open(relations().key_state, mode);
  check_is_heap(relation);
  return relation;
}

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

// Finds the row of a key as this transaction has left it, whoever else is about to delete it.
static bool find_row(Relation relation, const keypool::KeyId &key, ItemPointer address) {
  StateFinder finder = state_finder_begin(relation, SnapshotSelf);
  bool found = state_finder_find(finder, key, address);
  state_finder_end(&finder);
  return found;
}

// The server's function for rows of catalogs evaluates neither expressions nor conditions of indexes.
static void check_indexes(CatalogIndexState indexes) {
  for (int i = 0; i < indexes->ri_NumIndices; ++i) {
    const IndexInfo *index = indexes->ri_IndexRelationInfo[i];
    if (index->ii_Expressions != NIL || index->ii_Predicate != NIL)
      ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE),
              errmsg("keypool.key_state has an index with an expression or a condition"), errhint("Drop that index."));
  }
}

static void insert_fresh_row(Relation relation, const keypool::KeyId &key) {
  check_key_state_columns(RelationGetDescr(relation));
  keypool::KeyState fresh = keypool::FreshState();
  Datum values[] = {key_id_datum(key), PointerGetDatum(&fresh)};
  bool nulls[] = {false, false};
  HeapTuple row = heap_form_tuple(RelationGetDescr(relation), values, nulls);
  CatalogIndexState indexes = CatalogOpenIndexes(relation);
  check_indexes(indexes);
  CatalogTupleInsertWithInfo(relation, row, indexes);
  CatalogCloseIndexes(indexes);
  heap_freetuple(row);
}

void state_store_add(const keypool::KeyId &key) {
  Relation relation = state_store_open(RowExclusiveLock);
  ItemPointerData address;
  if (!find_row(relation, key, &address)) insert_fresh_row(relation, key);
  state_store_close(relation, NoLock);
}

void state_store_remove(const keypool::KeyId &key) {
  Relation relation = state_store_open(RowExclusiveLock);
  ItemPointerData address;
  TM_FailureData failure;
  CommandCounterIncrement();  // the row may be of this command
  // Waits for whoever deletes or locks the row. Nobody updates it, so if it cannot be deleted then, it is gone.
  if (find_row(relation, key, &address))
    table_tuple_delete(relation, &address, GetCurrentCommandId(true), SnapshotAny, InvalidSnapshot, true, &failure,
                       false);
  state_store_close(relation, NoLock);
}

// The state at an address in a page that is pinned, or null if it does not hold this key. `is_doubtful` is set if
// somebody may have deleted it.
static keypool::KeyState *find_state(Buffer buffer, const ItemPointerData &address, const keypool::KeyId &key,
                                     bool *is_doubtful) {
  Page page = BufferGetPage(buffer);
  OffsetNumber offset = ItemPointerGetOffsetNumber(&address);
  if (offset > PageGetMaxOffsetNumber(page)) return nullptr;
  ItemId item = PageGetItemId(page, offset);
  if (!ItemIdIsNormal(item) || ItemIdGetLength(item) != kRowSize) return nullptr;
  auto *header = reinterpret_cast<HeapTupleHeader>(PageGetItem(page, item));
  char *row = reinterpret_cast<char *>(header) + kHeaderSize;
  if (memcmp(row, key.bytes, UUID_LEN) != 0) return nullptr;
  *is_doubtful = (header->t_infomask & (HEAP_XMAX_INVALID | HEAP_XMAX_LOCK_ONLY)) == 0;
  auto *state = reinterpret_cast<keypool::KeyState *>(row + UUID_LEN);
  return state->layout == keypool::kLayout ? state : nullptr;
}

bool state_finder_copy(const StateFinder &finder, const keypool::KeyId &key, keypool::KeyState *copy) {
  ItemPointerData address;
  if (!state_finder_find(finder, key, &address)) return false;
  Buffer buffer = ReadBuffer(finder.scan->heapRelation, ItemPointerGetBlockNumber(&address));
  LockBuffer(buffer, BUFFER_LOCK_SHARE);
  bool is_doubtful;
  const keypool::KeyState *state = find_state(buffer, address, key, &is_doubtful);
  if (state != nullptr) *copy = *state;
  UnlockReleaseBuffer(buffer);
  return state != nullptr;
}

// Whether a row that somebody has begun to delete is still there. To ask that may read files and raise, so the row's
// buffer must not be locked. Leaves a hint in the row once that is settled.
static bool is_there(Relation relation, ItemPointerData address) {
  TupleTableSlot *row = table_slot_create(relation, nullptr);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  bool there = table_tuple_fetch_row_version(relation, &address, snapshot, row);
  UnregisterSnapshot(snapshot);
  ExecDropSingleTupleTableSlot(row);
  return there;
}

LockedState state_store_lock(Relation relation, const ItemPointerData &address, const keypool::KeyId &key, int mode) {
  Buffer buffer = ReadBuffer(relation, ItemPointerGetBlockNumber(&address));
  LockBuffer(buffer, mode);
  bool is_doubtful = false;
  LockedState locked = {buffer, find_state(buffer, address, key, &is_doubtful)};
  if (is_doubtful) {
    LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
    bool there = is_there(relation, address);
    LockBuffer(buffer, mode);
    // A deletion that commits from here on is after this call.
    locked.state = there ? find_state(buffer, address, key, &is_doubtful) : nullptr;
  }
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
  bool is_doubtful = false;
  keypool::KeyState *state = find_state(buffer, address, key, &is_doubtful);
  if (is_doubtful && !is_there(relation, address)) state = nullptr;
  if (state == nullptr || !lock_unless_granted(buffer, mode, state, since, last_grant)) {
    ReleaseBuffer(buffer);
    return {};
  }
  // Nothing moves in a page that is pinned, but the row may have been taken away. A deletion that began since the first
  // look commits after this call began.
  LockedState locked = {buffer, find_state(buffer, address, key, &is_doubtful)};
  *last_grant = locked.state == nullptr ? -1 : locked.state->reserved.last_grant;
  if (locked.state != nullptr && *last_grant <= since) return locked;
  UnlockReleaseBuffer(buffer);
  return {};
}

void state_store_unlock(const LockedState &locked, bool changed) {
  if (changed) MarkBufferDirtyHint(locked.buffer, true);
  UnlockReleaseBuffer(locked.buffer);
}
