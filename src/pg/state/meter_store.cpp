// meter_store.cpp - the rows of keypool.key_meters and keypool.quota_meters, read and changed in place.
#include "pg/state/meter_store.h"

extern "C" {
#include "access/heapam.h"
#include "catalog/pg_class.h"
#include "nodes/execnodes.h"
}

#include "pg/catalog/relations.h"
#include "pg/server/key_ids.h"

using keypool::KeyId;
using keypool::kMaxMeters;
using keypool::Meter;

// A row is its header, the id, and the meter: all fixed in width and never null.
static constexpr Size kHeaderSize = MAXALIGN(SizeofHeapTupleHeader);
static constexpr Size kRowSize = kHeaderSize + UUID_LEN + sizeof(Meter);
static_assert(sizeof(KeyId) == UUID_LEN);
static_assert((kHeaderSize + UUID_LEN) % alignof(Meter) == 0);
static_assert(kRowSize <= MaxHeapTupleSize && 2 * kRowSize > MaxHeapTupleSize);  // one a page

Relation meter_table_open(MeterKind kind, LOCKMODE mode) {
  Relation table = table_open(kind == MeterKind::kKey ? relations().key_meters : relations().quota_meters, mode);
  check_is_heap(table);
  return table;
}

MeterTables meter_tables_open(LOCKMODE mode, bool with_quotas) {
  MeterTables tables = {meter_table_open(MeterKind::kKey, mode), nullptr, mode};
  if (!with_quotas) return tables;
  tables.quotas = meter_table_open(MeterKind::kQuota, mode);
  if (tables.keys->rd_rel->relpersistence != tables.quotas->rd_rel->relpersistence)
    ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE),
            errmsg("one of keypool.key_meters and keypool.quota_meters is unlogged, and the other is not"),
            errhint("Undo the ALTER TABLE ... SET UNLOGGED."));
  return tables;
}

void meter_tables_close(const MeterTables &tables) {
  if (tables.quotas != nullptr) table_close(tables.quotas, tables.mode);
  table_close(tables.keys, tables.mode);
}

MeterFinder meter_finder_begin(MeterKind kind, Relation table, Snapshot snapshot) {
  Oid by_id = kind == MeterKind::kKey ? relations().key_meters_by_key : relations().quota_meters_by_quota;
  Relation index = index_open(by_id, AccessShareLock);
  return {index, begin_index_scan(table, index, snapshot), table_slot_create(table, nullptr)};
}

bool meter_finder_find(const MeterFinder &finder, const KeyId &id, ItemPointer address) {
  ScanKeyData condition;
  ScanKeyInit(&condition, kMetersId, BTEqualStrategyNumber, F_UUID_EQ, PointerGetDatum(id.bytes));
  index_rescan(finder.scan, &condition, 1, nullptr, 0);
  if (!index_getnext_slot(finder.scan, ForwardScanDirection, finder.row)) return false;
  *address = finder.row->tts_tid;
  ExecClearTuple(finder.row);
  return true;
}

void meter_finder_end(MeterFinder *finder) {
  ExecDropSingleTupleTableSlot(finder->row);
  index_endscan(finder->scan);
  index_close(finder->index, AccessShareLock);
}

// Finds a row as this transaction has left it, whoever else is about to delete it.
static bool find_row(MeterKind kind, Relation table, const KeyId &id, ItemPointer address) {
  MeterFinder finder = meter_finder_begin(kind, table, SnapshotSelf);
  bool found = meter_finder_find(finder, id, address);
  meter_finder_end(&finder);
  return found;
}

// The server's function for rows of catalogs evaluates neither expressions nor conditions of indexes.
static void check_indexes(Relation table, CatalogIndexState indexes) {
  for (int i = 0; i < indexes->ri_NumIndices; ++i) {
    const IndexInfo *index = indexes->ri_IndexRelationInfo[i];
    if (index->ii_Expressions != NIL || index->ii_Predicate != NIL)
      ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE),
              errmsg("keypool.%s has an index with an expression or a condition", RelationGetRelationName(table)),
              errhint("Drop that index."));
  }
}

static void insert_row(Relation table, const KeyId &id, const Meter &fresh) {
  check_meter_columns(table);
  Datum values[] = {key_id_datum(id), PointerGetDatum(&fresh)};
  bool nulls[] = {false, false};
  HeapTuple row = heap_form_tuple(RelationGetDescr(table), values, nulls);
  CatalogIndexState indexes = CatalogOpenIndexes(table);
  check_indexes(table, indexes);
  CatalogTupleInsertWithInfo(table, row, indexes);
  CatalogCloseIndexes(indexes);
  heap_freetuple(row);
}

void meter_store_add(MeterKind kind, const KeyId &id, const Meter &fresh) {
  Relation table = meter_table_open(kind, RowExclusiveLock);
  ItemPointerData address;
  if (!find_row(kind, table, id, &address)) insert_row(table, id, fresh);
  table_close(table, NoLock);
}

void meter_store_remove(MeterKind kind, const KeyId &id) {
  Relation table = meter_table_open(kind, RowExclusiveLock);
  ItemPointerData address;
  TM_FailureData failure;
  CommandCounterIncrement();  // the row may be of this command
  // Waits for whoever deletes or locks the row. Nobody updates it, so if it cannot be deleted then, it is gone.
  if (find_row(kind, table, id, &address))
    table_tuple_delete(table, &address, GetCurrentCommandId(true), SnapshotAny, InvalidSnapshot, true, &failure, false);
  table_close(table, NoLock);
}

// The meter at an address in a page that is pinned, or null if it does not hold this one. `is_doubtful` is set if
// somebody may have deleted it.
static Meter *find_meter(Buffer buffer, const ItemPointerData &address, const KeyId &id, bool *is_doubtful) {
  Page page = BufferGetPage(buffer);
  OffsetNumber offset = ItemPointerGetOffsetNumber(&address);
  if (offset > PageGetMaxOffsetNumber(page)) return nullptr;
  ItemId item = PageGetItemId(page, offset);
  if (!ItemIdIsNormal(item) || ItemIdGetLength(item) != kRowSize) return nullptr;
  auto *header = reinterpret_cast<HeapTupleHeader>(PageGetItem(page, item));
  char *row = reinterpret_cast<char *>(header) + kHeaderSize;
  if (memcmp(row, id.bytes, UUID_LEN) != 0) return nullptr;
  *is_doubtful = (header->t_infomask & (HEAP_XMAX_INVALID | HEAP_XMAX_LOCK_ONLY)) == 0;
  auto *meter = reinterpret_cast<Meter *>(row + UUID_LEN);
  return meter->layout == keypool::kLayout ? meter : nullptr;
}

bool meter_finder_copy(const MeterFinder &finder, const KeyId &id, Meter *copy) {
  ItemPointerData address;
  if (!meter_finder_find(finder, id, &address)) return false;
  Buffer buffer = ReadBuffer(finder.scan->heapRelation, ItemPointerGetBlockNumber(&address));
  LockBuffer(buffer, BUFFER_LOCK_SHARE);
  bool is_doubtful;
  const Meter *meter = find_meter(buffer, address, id, &is_doubtful);
  if (meter != nullptr) *copy = *meter;
  UnlockReleaseBuffer(buffer);
  return meter != nullptr;
}

static constexpr keypool::TimeUs kDay = 86400 * keypool::kMicrosPerSecond;

static void count_meters(MeterKind kind, keypool::TimeUs now, MeterCensus *census) {
  Relation table = meter_table_open(kind, AccessShareLock);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  TableScanDesc scan = table_beginscan(table, snapshot, 0, nullptr);
  TupleTableSlot *row = table_slot_create(table, nullptr);
  while (table_scan_getnextslot(scan, ForwardScanDirection, row)) {
    CHECK_FOR_INTERRUPTS();
    bool is_null;
    Datum meter = slot_getattr(row, kMetersMeter, &is_null);
    if (is_null) continue;
    Meter copy;
    memcpy(&copy, DatumGetPointer(meter), sizeof(copy));
    if (copy.layout != keypool::kLayout) continue;
    census->ahead += keypool::ClockWasWrong(copy, now);
    census->resting += keypool::BreakerStateOf(copy, now) != keypool::BreakerState::kClosed;
    census->without_model += now - copy.reserved.without_model_at < kDay;
  }
  ExecDropSingleTupleTableSlot(row);
  table_endscan(scan);
  UnregisterSnapshot(snapshot);
  table_close(table, AccessShareLock);
}

MeterCensus meter_store_census(keypool::TimeUs now) {
  MeterCensus census = {};
  count_meters(MeterKind::kKey, now, &census);
  count_meters(MeterKind::kQuota, now, &census);
  return census;
}

// Whether a row that somebody has begun to delete is still there. To ask that may read files and raise, so no page may
// be locked. Leaves a hint in the row once that is settled.
static bool is_there(Relation table, ItemPointerData address) {
  TupleTableSlot *row = table_slot_create(table, nullptr);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  bool there = table_tuple_fetch_row_version(table, &address, snapshot, row);
  UnregisterSnapshot(snapshot);
  ExecDropSingleTupleTableSlot(row);
  return there;
}

// Pins the page of a row. Looking a buffer up counts as a use of it, which keeps it in memory; this may not, but every
// record does.
static Buffer pin_recent(Relation table, const ItemPointerData &address, Buffer recent) {
  BlockNumber block = ItemPointerGetBlockNumber(&address);
  return BufferIsValid(recent) && read_recent_buffer(table, block, recent) ? recent : ReadBuffer(table, block);
}

void meters_unpin(Meters *meters) {
  Assert(meters->pages == 0);
  for (int i = 0; i < meters->count; ++i) ReleaseBuffer(meters->buffer[i]);
  meters->count = 0;
}

// Pins one more. The look is without a lock: nothing moves in a page that is pinned.
static bool pin_meter(Relation table, MeterKind kind, MeterPlace *place, Meters *meters) {
  Assert(meters->count < kMaxMeters && meters->pages == 0);
  int i = meters->count;
  place->buffer = pin_recent(table, place->address, place->buffer);
  bool is_doubtful = false;
  Meter *meter = find_meter(place->buffer, place->address, place->id, &is_doubtful);
  meters->kind[i] = kind;
  meters->place[i] = place;
  meters->meter[i] = meter;
  meters->buffer[i] = place->buffer;
  meters->count = i + 1;
  if (meter != nullptr && (!is_doubtful || is_there(table, place->address))) return true;
  meters_unpin(meters);
  return false;
}

bool meters_pin_key(const MeterTables &tables, MeterPlace *key, Meters *meters) {
  Assert(meters->count == 0);
  return pin_meter(tables.keys, MeterKind::kKey, key, meters);
}

bool meters_pin_quotas(const MeterTables &tables, MeterPlace *const *quotas, int count, Meters *meters) {
  for (int i = 0; i < count; ++i)
    if (!pin_meter(tables.quotas, MeterKind::kQuota, quotas[i], meters)) return false;
  return true;
}

int64 meters_turn(const Meters &meters) {
  Assert(meters.count > 0 && meters.kind[0] == MeterKind::kKey);
  return __atomic_load_n(&meters.meter[0]->reserved.turn, __ATOMIC_RELAXED);
}

// A page of meters, where it stands in the order of locks.
struct LockOrder {
  MeterKind kind;
  BlockNumber block;
  Buffer buffer;

  bool is_before(const LockOrder &other) const {
    return kind != other.kind ? kind == MeterKind::kKey : block < other.block;
  }
};

// Writes the pages in the order in which they are to be locked; returns how many.
static int order_pages(const Meters &meters, LockOrder (&order)[kMaxMeters]) {
  int pages = 0;
  for (int i = 0; i < meters.count; ++i) {
    LockOrder page = {meters.kind[i], ItemPointerGetBlockNumber(&meters.place[i]->address), meters.buffer[i]};
    int at = pages;
    while (at > 0 && page.is_before(order[at - 1])) --at;
    Assert(at == 0 || order[at - 1].buffer != page.buffer);
    memmove(&order[at + 1], &order[at], sizeof(page) * static_cast<size_t>(pages - at));
    order[at] = page;
    ++pages;
  }
  return pages;
}

#ifdef USE_ASSERT_CHECKING
static bool holds_locks = false;  // whether this process has meters locked
#endif

// Notes that a page is locked.
static void note_locked(Meters *meters, const LockOrder (&order)[kMaxMeters]) {
  int p = meters->pages++;
  meters->page[p] = order[p].buffer;
#ifdef USE_ASSERT_CHECKING
  Assert(p == 0 ? !holds_locks : holds_locks && order[p - 1].is_before(order[p]));
  holds_locks = true;
#endif
}

static void unlock_pages(Meters *meters) {
  while (meters->pages > 0) LockBuffer(meters->page[--meters->pages], BUFFER_LOCK_UNLOCK);
#ifdef USE_ASSERT_CHECKING
  holds_locks = false;
#endif
}

// Nothing moves in a page that is pinned, but a row may have been taken away. A deletion that began since the look
// without a lock commits after this call began. If one is gone, all are given back.
static bool are_there(Meters *meters) {
  bool is_doubtful, there = true;
  for (int i = 0; there && i < meters->count; ++i)
    there = find_meter(meters->buffer[i], meters->place[i]->address, meters->place[i]->id, &is_doubtful) != nullptr;
  if (there) return true;
  unlock_pages(meters);
  meters_unpin(meters);
  return false;
}

// Locks those from the first that is not locked yet.
static bool lock_pages(Meters *meters, const LockOrder (&order)[kMaxMeters], int pages, int mode) {
  while (meters->pages < pages) {
    LockBuffer(order[meters->pages].buffer, mode);
    note_locked(meters, order);
  }
  return are_there(meters);
}

bool meters_lock(Meters *meters, int mode) {
  Assert(meters->count > 0 && meters->pages == 0);
  LockOrder order[kMaxMeters];
  int pages = order_pages(*meters, order);
  return lock_pages(meters, order, pages, mode);
}

// Waits for the lock of the key's page while somebody has it, as long as the key is not selected meanwhile. False if it
// was.
static bool lock_key_unless_selected(const Meters &meters, int mode, int64 turn) {
  static constexpr int kTries = 100;
  for (int i = 0; i < kTries; ++i) {
    if (meters_turn(meters) > turn) return false;
    if (mode == BUFFER_LOCK_SHARE) break;
    if (ConditionalLockBuffer(meters.buffer[0])) return true;
    SPIN_DELAY();
  }
  LockBuffer(meters.buffer[0], mode);
  return true;
}

MetersLock meters_lock_unless_selected(Meters *meters, int mode, int64 turn) {
  Assert(meters->pages == 0);
  LockOrder order[kMaxMeters];
  int pages = order_pages(*meters, order);
  if (!lock_key_unless_selected(*meters, mode, turn)) return MetersLock::kSelected;
  note_locked(meters, order);
  if (meters_turn(*meters) > turn) {
    unlock_pages(meters);
    return MetersLock::kSelected;
  }
  return lock_pages(meters, order, pages, mode) ? MetersLock::kLocked : MetersLock::kGone;
}

void meters_unlock(Meters *meters, bool hints_changed) {
  for (int p = 0; hints_changed && p < meters->pages; ++p) MarkBufferDirtyHint(meters->page[p], true);
  unlock_pages(meters);
  meters_unpin(meters);
}
