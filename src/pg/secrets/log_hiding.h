// log_hiding.h - keeping typed and bound secrets out of the server's log.
//
// An entry is looked at if the running statement brings a secret (statement_hiding.h), or one of the entry's texts
// names what a secret is given to; what is hidden in it does not depend on who wrote it, except for the formats that
// core/secret/log_redaction.h reads. Secrets that the running statement was given are hidden in every entry.
#pragma once

#include "pg/server/postgres_api.h"

void log_hiding_init(void);

// Whether no other library sees entries of the log before the secrets are hidden in them.
bool log_hiding_comes_first(void);
