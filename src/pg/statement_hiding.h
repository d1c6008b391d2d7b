// statement_hiding.h - keeping typed secrets out of the server's log and its activity view, as far as an extension can.
//
// A statement that names keypool_add_key or provider_keys may hold a secret as a literal, or bind one. Where this
// library is loaded (session_preload_libraries loads it from a session's start; else the first call of one of its
// functions does), the text and the parameters of such a statement are left out of the log, and of pg_stat_activity as
// soon as the secret is sealed.
#pragma once

#include "pg/postgres_api.h"

void statement_hiding_init(void);

// The statement that runs has brought a secret: its text is no longer shown to other sessions.
void hide_running_statement(void);
