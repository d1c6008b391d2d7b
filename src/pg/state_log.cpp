// state_log.cpp - logging what an edit changed of a key's state.
#include "pg/state_log.h"

extern "C" {
#include "access/rmgr.h"
#include "access/xloginsert.h"
}

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

void state_log_edit(Relation relation, Buffer buffer, const keypool::StateEdit &edit) {
  if (edit.count() == 0) return;
  MarkBufferDirty(buffer);
  if (!RelationNeedsWAL(relation)) return;
  Page page = BufferGetPage(buffer);
  auto *state = reinterpret_cast<const char *>(&edit.state());
  auto state_offset = static_cast<OffsetNumber>(state - static_cast<const char *>(page));
  Pieces pieces;
  pieces.size = 0;
  for (int i = 0; i < edit.count(); ++i) {
    const ChangedBytes &change = edit.change(i);
    auto offset = static_cast<OffsetNumber>(state_offset + change.offset);
    add_piece(&pieces, {offset, change.length}, state + change.offset);
  }
  XLogBeginInsert();
  XLogRegisterBuffer(0, buffer, REGBUF_STANDARD);
  XLogRegisterBufData(0, pieces.bytes, pieces.size);
  XLogRecPtr end = XLogInsert(RM_GENERIC_ID, 0);
  PageSetLSN(page, end);  // in PostgreSQL 15 a macro that evaluates it twice
}
