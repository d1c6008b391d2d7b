// settings.h - the settings keypool.*.
#pragma once

#include "core/key_state.h"

extern int keypool_cache_size;             // kB
extern int keypool_default_cooldown;       // seconds
extern int keypool_max_cooldown;           // seconds
extern char *keypool_master_key_command;   // shell command, or empty
extern char *keypool_pgp_secret_key_file;  // path, or empty
extern char *keypool_master_key_file;      // path, or empty
extern keypool::TimeUs keypool_test_now;   // 0: not set

// Defines them all and reserves the prefix.
void settings_init(void);
