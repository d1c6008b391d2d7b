// statement_hiding.h - which statement brings a secret, and keeping its constants out of the activity view.
//
// A statement that names keypool_add_key, keypool_set_secret, keypool_update_key, keypool_apply or provider_keys may
// hold a secret as a constant, or bind one, and one that names keypool_report or keypool_explain_answer what a provider
// has said of one; so may one that runs such a statement, one in which a secret is sealed, and, in a session that has
// had one of these, one that holds the word EXECUTE. Where this library is loaded (session_preload_libraries loads it
// from a session's start; else the first call of one of its functions does), the constants of such a statement are
// taken out of what the log shows of it (log_hiding.h), and out of pg_stat_activity as soon as the statement is
// analysed, is executed, or a secret is sealed. Nothing but constants is hidden, so that naming these objects hides
// nobody's deeds.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/secret/known_values.h"

void statement_hiding_init(void);

// The statement that runs has brought a secret: its constants are no longer shown.
void hide_running_statement(void);

// The same, and the secret is hidden from the log wherever it appears while the statement runs.
void hide_given_secret(std::string_view secret);

// The statement that runs, as the client sent it, or null.
const char *running_statement(void);
bool running_statement_brings_secret(void);

// Puts its text without constants, and without the values that are known, where the log takes it from.
void redact_running_statement(void);

// What the running statement was given: secrets that came to be sealed, and parameters that it binds. Wiped when the
// transaction ends.
const keypool::KnownValues &given_secrets(void);
const keypool::KnownValues &bound_values(void);
