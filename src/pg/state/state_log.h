// state_log.h - logging what an edit changed of a key's state.
//
// The record is one of the server's own kind for extensions, generic WAL: crash recovery, standbys and the tools for
// WAL know it. Its form, of access/transam/generic_xlog.c in every version since 9.6: for the page, pieces of two bytes
// of offset in the page, two bytes of length, and so many bytes of what lies there after the change.
//
// GenericXLogFinish() would write the same record, byte for byte (031_untested_server). But it copies the page and
// compares all of it to find the bytes that changed, which takes several times as long as all else that keypool_record
// does; here they are known. In a server that is not on the list of those that this is tested with
// (server_is_tested), it does write it.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/state_edit.h"

struct GenericXLogState;

// A change of one state that is to be logged; made before its page is locked, since that may allocate.
struct StateLog {
  Relation relation;
  GenericXLogState *generic;  // null where state_log itself writes the record
};

StateLog state_log_begin(Relation relation);

// Ends it without a change.
void state_log_abandon(const StateLog &log);

// The state to edit: the one in the page of a buffer that is locked exclusively, or its copy. Until state_log_finish
// nothing may raise.
keypool::KeyState *state_log_start(const StateLog &log, Buffer buffer, keypool::KeyState *state);

// Puts into the page what the edit of that state has changed, and logs it if the relation is one that is logged.
void state_log_finish(const StateLog &log, Buffer buffer, const keypool::StateEdit &edit);
