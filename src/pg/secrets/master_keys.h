// master_keys.h - the keyring that this process has loaded: from keypool.master_key_file, or from the output of
// keypool.master_key_command.
//
// The file must be private (private_file.h). It is looked at again at most once a second, and at once where that
// matters: before something is sealed, and when a secret names a key that is not there. A command is run once per
// process, and again after each reload of the configuration; one that failed is tried again after a wait. A source that
// has become unusable, or that has another key under an id that this database knows (known_master_keys.h), is logged
// and the last good keyring goes on opening secrets, as a reload with a bad SSL key does; nothing is sealed until it is
// right again. A file is tried again at each look, in case its trouble was passing.
//
// To run a command may take its time: it is done before any table is locked, but in a statement that brings plaintext
// into keypool.provider_keys, which has locked that for its own change before keypool is asked.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/secret/keyring.h"

// The keyring as last loaded; empty if there was never a good one. Belongs to the module.
keypool::Keyring *master_keys(void);

// Changes whenever another keyring was loaded.
uint32 master_keys_generation(void);

// What is wrong with the source, or ok.
const keypool::Status &master_keys_problem(void);

// Looks at the source if the last look was long enough ago. A command is cancelled with the statement.
void master_keys_check(void);

// Looks at the source now.
void master_keys_check_now(void);

// The same for a caller that may hold locks: runs no command again that has failed. If its session has looked at the
// source in the same statement before, no command is run at all.
void master_keys_check_locked(void);

// A secret did not open: drops the keyring if it has another key under an id that this database knows, which is its
// problem then, and returns false. Looked up once for each keyring.
bool master_keys_stand_doubt(void);

// Looks at the source now, and says what is wrong with it, or with the keyring that is loaded.
keypool::Status master_keys_diagnosis(void);

// The key that seals, after a look at the source; it is known in this database from then on. Raises KP401 if the source
// is unusable, or if the key is not the one that is known by its id.
const keypool::MasterKey *master_keys_primary(void);
