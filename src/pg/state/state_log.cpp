// state_log.cpp - logging what an edit changed of a key's state.
#include "pg/state/state_log.h"

extern "C" {
#include "access/generic_xlog.h"
#include "access/rmgr.h"
#include "access/xloginsert.h"
}

#include "pg/server/settings.h"

using keypool::KeyState;

static OffsetNumber offset_in_page(Page page, const KeyState *state) {
  return static_cast<OffsetNumber>(reinterpret_cast<const char *>(state) - static_cast<const char *>(page));
}

// What GenericXLogFinish() does, where the page is changed already.
static void log_edit(Relation relation, Buffer buffer, const keypool::StateEdit &edit) {
  MarkBufferDirty(buffer);
  if (!RelationNeedsWAL(relation)) return;
  Page page = BufferGetPage(buffer);
  keypool::PageDelta delta;
  edit.WriteDelta(offset_in_page(page, &edit.state()), &delta);
  XLogBeginInsert();
  XLogRegisterBuffer(0, buffer, REGBUF_STANDARD);
  XLogRegisterBufData(0, delta.bytes, delta.size);
  XLogRecPtr end = XLogInsert(RM_GENERIC_ID, 0);
  PageSetLSN(page, end);  // in PostgreSQL 15 a macro that evaluates it twice
}

StateLog state_log_begin(Relation relation) {
  return {relation, server_is_tested() ? nullptr : GenericXLogStart(relation)};
}

void state_log_abandon(const StateLog &log) {
  if (log.generic != nullptr) GenericXLogAbort(log.generic);
}

KeyState *state_log_start(const StateLog &log, Buffer buffer, KeyState *state) {
  if (log.generic == nullptr) {
    START_CRIT_SECTION();
    return state;
  }
  Page copy = GenericXLogRegisterBuffer(log.generic, buffer, 0);
  return reinterpret_cast<KeyState *>(static_cast<char *>(copy) + offset_in_page(BufferGetPage(buffer), state));
}

void state_log_finish(const StateLog &log, Buffer buffer, const keypool::StateEdit &edit) {
  if (log.generic == nullptr) {
    if (edit.changed()) log_edit(log.relation, buffer, edit);
    END_CRIT_SECTION();
  } else if (edit.changed()) {
    GenericXLogFinish(log.generic);
  } else {
    GenericXLogAbort(log.generic);
  }
}
