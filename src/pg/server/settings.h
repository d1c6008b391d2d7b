// settings.h - the settings keypool.*.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/quota/time.h"

extern int keypool_cache_size;             // kB
extern int keypool_default_cooldown;       // seconds
extern int keypool_max_cooldown;           // seconds
extern int keypool_keep_events;            // of changes, and of calls; 0: none are written
extern int keypool_max_waiters;            // selections that wait for one provider; 0: none does
extern int keypool_breaker_threshold;       // failures of a key in a row that open its breaker; 0: none do
extern bool keypool_log_reservations;      // whether selections are logged
extern char *keypool_master_key_command;   // shell command, or empty
extern char *keypool_pgp_secret_key_file;  // path, or empty
extern char *keypool_master_key_file;      // path, or empty
extern keypool::TimeUs keypool_test_now;   // 0: not set
extern bool keypool_test_untested_server;  // to act as if this server were none of those that keypool is tested with

// Defines them all and reserves the prefix.
void settings_init(void);

// Whether to rely on what is known of the tested versions of the server only.
inline bool server_is_tested(void) { return kServerIsTested && !keypool_test_untested_server; }
