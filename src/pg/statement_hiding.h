// statement_hiding.h - keeping typed secrets out of the server's log and its activity view, as far as an extension can.
//
// A statement that names keypool_add_key or provider_keys may hold a secret as a constant, or bind one. Where this
// library is loaded (session_preload_libraries loads it from a session's start; else the first call of one of its
// functions does), the constants of such a statement are taken out of what the log shows of it, and out of
// pg_stat_activity as soon as the statement is analysed or a secret is sealed. Nothing but constants is hidden, so that
// naming these objects hides nobody's deeds.
#pragma once

#include "pg/postgres_api.h"

void statement_hiding_init(void);

// The statement that runs has brought a secret: its constants are no longer shown.
void hide_running_statement(void);
