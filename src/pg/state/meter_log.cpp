// meter_log.cpp - logging what the edits of up to four meters have changed, as one record.
#include "pg/state/meter_log.h"

extern "C" {
#include "access/generic_xlog.h"
#include "access/rmgr.h"
#include "access/xloginsert.h"
}

#include "pg/server/settings.h"

using keypool::ChangedBytes;
using keypool::kMaxMeters;
using keypool::Meter;

// Each page is one block of the record, and generic WAL has so many.
static_assert(kMaxMeters <= MAX_GENERIC_XLOG_PAGES);

// The pieces of one record. Static, since nothing may be allocated while pages are locked.
static constexpr Size kPieceHeader = 2 * sizeof(OffsetNumber);
static constexpr Size kMaxPieces = sizeof(Meter) + keypool::kMaxChanges * kPieceHeader;
static char pieces[kMaxMeters * kMaxPieces];

static OffsetNumber offset_in_page(Buffer buffer, const Meter *meter) {
  return static_cast<OffsetNumber>(reinterpret_cast<const char *>(meter) -
                                   static_cast<const char *>(BufferGetPage(buffer)));
}

static char *write_number(char *at, Size number) {
  auto value = static_cast<OffsetNumber>(number);
  memcpy(at, &value, sizeof(value));
  return at + sizeof(value);
}

// Writes what the edit of one meter has changed; returns the end.
static char *write_pieces(keypool::MeterEdit *edit, OffsetNumber offset, char *at) {
  const ChangedBytes *changes;
  int count = edit->Finish(&changes);
  const char *meter = reinterpret_cast<const char *>(&edit->meter());
  for (int i = 0; i < count; ++i) {
    at = write_number(at, Size{offset} + changes[i].offset);
    at = write_number(at, changes[i].length);
    memcpy(at, meter + changes[i].offset, changes[i].length);
    at += changes[i].length;
  }
  return at;
}

// The meter that lies next in a page, behind this one; -1 if there is none. Null: the first.
static int next_in_page(const Meters &meters, Buffer page, const Meter *behind) {
  int next = -1;
  for (int i = 0; i < meters.count; ++i) {
    bool is_behind = meters.buffer[i] == page && meters.meter[i] > behind;
    if (is_behind && (next < 0 || meters.meter[i] < meters.meter[next])) next = i;
  }
  return next;
}

// What has changed in one page, by offset.
static char *write_page(MeterChange *change, const Meters &meters, Buffer page, char *at) {
  for (int i = next_in_page(meters, page, nullptr); i >= 0; i = next_in_page(meters, page, meters.meter[i]))
    at = write_pieces(&change->edits[i], offset_in_page(page, meters.meter[i]), at);
  return at;
}

static bool is_logged(const MeterChange &change, const Meters &meters, Buffer page) {
  int first = next_in_page(meters, page, nullptr);
  return change.logged[static_cast<int>(meters.kind[first])];
}

// What GenericXLogFinish() does, where the pages are changed already. `changed` says which of them are.
static void log_pages(MeterChange *change, const Meters &meters, bool (&changed)[kMaxMeters]) {
  Buffer logged[kMaxMeters];
  uint8 count = 0;
  char *at = pieces;
  for (int p = 0; p < meters.pages; ++p) {
    Buffer page = meters.page[p];
    char *begin = at;
    at = write_page(change, meters, page, at);
    changed[p] = at != begin;
    if (!changed[p]) continue;
    MarkBufferDirty(page);
    if (!is_logged(*change, meters, page)) continue;
    if (count == 0) XLogBeginInsert();
    XLogRegisterBuffer(count, page, REGBUF_STANDARD);
    XLogRegisterBufData(count, begin, static_cast<int>(at - begin));
    logged[count++] = page;
  }
  if (count == 0) return;
  XLogRecPtr end = XLogInsert(RM_GENERIC_ID, 0);
  for (int i = 0; i < count; ++i) PageSetLSN(BufferGetPage(logged[i]), end);
}

static void commit_direct(MeterChange *change, const Meters &meters) {
  bool changed[kMaxMeters];
  log_pages(change, meters, changed);
  END_CRIT_SECTION();
  // Not earlier: with checksums this may write a record of its own.
  for (int p = 0; p < meters.pages; ++p)
    if (!changed[p]) MarkBufferDirtyHint(meters.page[p], true);
}

// The copies take the place of the pages, hints included, unless nothing was changed but hints. Those were changed in
// both.
static void commit_generic(MeterChange *change, const Meters &meters) {
  const ChangedBytes *changes;
  bool any = false;
  for (int i = 0; i < meters.count; ++i) any = change->edits[i].Finish(&changes) > 0 || any;
  if (any) {
    GenericXLogFinish(change->generic);
    return;
  }
  GenericXLogAbort(change->generic);
  for (int p = 0; p < meters.pages; ++p) MarkBufferDirtyHint(meters.page[p], true);
}

void meter_change_begin(MeterChange *change, const MeterTables &tables, bool durable) {
  if (durable && synchronous_commit > SYNCHRONOUS_COMMIT_OFF) GetTopTransactionId();
  bool quotas_logged = tables.quotas != nullptr && RelationNeedsWAL(tables.quotas);
  change->logged[static_cast<int>(MeterKind::kKey)] = RelationNeedsWAL(tables.keys);
  change->logged[static_cast<int>(MeterKind::kQuota)] = quotas_logged;
  // Which asks this relation whether to log all the pages.
  change->generic = server_is_tested() ? nullptr : GenericXLogStart(quotas_logged ? tables.quotas : tables.keys);
}

void meter_change_abandon(MeterChange *change) {
  if (change->generic != nullptr) GenericXLogAbort(change->generic);
}

void meter_change_start(MeterChange *change, const Meters &meters) {
  Assert(meters.pages > 0);
  if (change->generic == nullptr) START_CRIT_SECTION();
  // In the order of the locks, which recovery takes likewise. The same page again gives the same copy.
  for (int p = 0; change->generic != nullptr && p < meters.pages; ++p)
    GenericXLogRegisterBuffer(change->generic, meters.page[p], GENERIC_XLOG_FULL_IMAGE);
  for (int i = 0; i < meters.count; ++i) {
    Meter *meter = meters.meter[i], *copied_from = nullptr;
    if (change->generic != nullptr) {
      Page copy = GenericXLogRegisterBuffer(change->generic, meters.buffer[i], GENERIC_XLOG_FULL_IMAGE);
      copied_from = meter;
      meter = reinterpret_cast<Meter *>(static_cast<char *>(copy) + offset_in_page(meters.buffer[i], meter));
    }
    change->meter[i] = meter;
    change->edits[i].Begin(meter, copied_from);
  }
}

void meter_change_commit(MeterChange *change, const Meters &meters) {
  if (change->generic == nullptr)
    commit_direct(change, meters);
  else
    commit_generic(change, meters);
}
