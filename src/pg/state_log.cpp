// state_log.cpp - logging what a change made of a key's state.
#include "pg/state_log.h"

extern "C" {
#include "access/rmgr.h"
#include "access/xloginsert.h"
}

#include "core/state_changes.h"

using keypool::ChangedBytes;
using keypool::KeyState;

// Where a piece lies in its page, as the record has it.
struct PieceHeader {
  OffsetNumber offset;
  OffsetNumber length;
};

// The pieces of a record, one behind the other.
struct Pieces {
  int size;
  char bytes[sizeof(KeyState) + keypool::kMaxChanges * sizeof(PieceHeader)];
};

static void add_piece(Pieces *pieces, const PieceHeader &header, const char *changed) {
  memcpy(pieces->bytes + pieces->size, &header, sizeof(header));
  memcpy(pieces->bytes + pieces->size + sizeof(header), changed, header.length);
  pieces->size += static_cast<int>(sizeof(header)) + header.length;
}

void state_log_change(Relation relation, Buffer buffer, KeyState *state, const KeyState &changed) {
  ChangedBytes changes[keypool::kMaxChanges];
  int count = keypool::FindChanges(*state, changed, changes);
  if (count == 0) return;
  Page page = BufferGetPage(buffer);
  auto *to = reinterpret_cast<char *>(state);
  auto *from = reinterpret_cast<const char *>(&changed);
  Pieces pieces;
  pieces.size = 0;
  for (int i = 0; i < count; ++i) {
    auto offset = static_cast<OffsetNumber>(to + changes[i].offset - static_cast<char *>(page));
    add_piece(&pieces, {offset, changes[i].length}, from + changes[i].offset);
  }

  START_CRIT_SECTION();
  for (int i = 0; i < count; ++i) memcpy(to + changes[i].offset, from + changes[i].offset, changes[i].length);
  MarkBufferDirty(buffer);
  if (RelationNeedsWAL(relation)) {
    XLogBeginInsert();
    XLogRegisterBuffer(0, buffer, REGBUF_STANDARD);
    XLogRegisterBufData(0, pieces.bytes, pieces.size);
    XLogRecPtr end = XLogInsert(RM_GENERIC_ID, 0);
    PageSetLSN(page, end);
  }
  END_CRIT_SECTION();
}
