// master_keys.h - the keyring that this process has loaded: from keypool.master_key_file, or from the output of
// keypool.master_key_command.
//
// The file must be private (private_file.h). It is looked at again at most once a second, and at once where that
// matters: before something is sealed, and when a secret names a key that is not there. A command is run once per
// process, and again after each reload of the configuration. A source that has become unusable is logged and the last
// good keyring goes on opening secrets, as a reload with a bad SSL key does; nothing is sealed until it is mended. It
// is tried again at each look, in case its trouble was passing.
#pragma once

#include "pg/postgres_api.h"

#include "core/keyring.h"

// The keyring as last loaded; empty if there was never a good one. Belongs to the module.
keypool::Keyring *master_keys(void);

// Changes whenever another keyring was loaded.
uint32 master_keys_generation(void);

// What is wrong with the source, or ok.
const keypool::Status &master_keys_problem(void);

// Looks at the source if the last look was long enough ago.
void master_keys_check(void);

// Looks at the source now.
void master_keys_check_now(void);

// The key that seals, after a look at the source. Raises KP401 if that is unusable.
const keypool::MasterKey *master_keys_primary(void);
