// report.h - the one place where a failure becomes a PostgreSQL error.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/status.h"

// A class of our own: drivers take 53xxx and 55xxx for broken or passing connections.
#define ERRCODE_KEYPOOL_LIMITED MAKE_SQLSTATE('K', 'P', '4', '2', '9')
#define ERRCODE_KEYPOOL_NOT_FOUND MAKE_SQLSTATE('K', 'P', '4', '0', '4')
#define ERRCODE_KEYPOOL_KNOWN_SECRET MAKE_SQLSTATE('K', 'P', '4', '0', '9')
#define ERRCODE_KEYPOOL_TOO_LARGE MAKE_SQLSTATE('K', 'P', '4', '1', '3')
#define ERRCODE_KEYPOOL_MASTER_KEY MAKE_SQLSTATE('K', 'P', '4', '0', '1')

// Raises if the status is a failure.
void report_status(const keypool::Status &status);

// Raises KP404 for a key id that is not there.
[[noreturn]] void report_unknown_key(void);

// Raises 25006 where nothing may be written: on a standby, or in a read-only transaction. The hint names the primary,
// and ends with `also`.
void report_if_read_only(const char *function, const char *also = "");
