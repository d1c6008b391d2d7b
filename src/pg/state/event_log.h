// event_log.h - keypool.event_log: who changed what, and what went wrong.
//
// Bounded by keypool.keep_events, for changes of configuration and for events of calls each: the oldest go, before there
// are twice as many. A COMMIT that brings events sends one NOTIFY on the channel keypool, with the number of the
// newest.
//
// A change and its event are of one transaction. What happened to calls stays true after a ROLLBACK: sessions note it,
// and write it at the COMMIT of this transaction or the next.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/key_id.h"

// A change of configuration.
struct ChangeEvent {
  const char *event;              // such as key_changed
  std::string_view provider;      // empty: it concerns several, or none
  const keypool::KeyId *subject;  // id of the key or the quota; may be null
  std::string_view name;          // its label or name, or that of a role; may be empty
  const char *details;            // JSON; may be null
};
void event_log_add(const ChangeEvent &change);

// What happened to calls. More than a few in one transaction are not noted.
struct CallEvent {
  const char *event;              // constant
  std::string_view provider;      // of 255 bytes at most
  const keypool::KeyId *subject;  // may be null
  const char *reason;             // constant; may be null
};
void event_log_note(const CallEvent &happened);

void event_log_init(void);
