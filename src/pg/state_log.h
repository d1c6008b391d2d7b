// state_log.h - logging what an edit changed of a key's state.
//
// The record is one of the server's own kind for extensions, generic WAL: crash recovery, standbys and the tools for
// WAL know it. Its form, of access/transam/generic_xlog.c in every version since 9.6: for the page, pieces of two bytes
// of offset in the page, two bytes of length, and so many bytes of what lies there after the change.
//
// GenericXLogFinish() would write the same record. But it copies the page and compares all of it, byte by byte, to find
// the bytes that changed, which takes several times as long as all else that keypool_record does; here they are known.
// What recovery and a standby make of it is tested in every version of the server (002_crash, 014_failover,
// 016_wal_consistency).
#pragma once

#include "pg/postgres_api.h"

#include "core/state_edit.h"

// Logs what an edit has changed of the state that lies in the page of a buffer, which is locked exclusively, if the
// relation is one that is logged. In the critical section in which it was changed.
void state_log_edit(Relation relation, Buffer buffer, const keypool::StateEdit &edit);
