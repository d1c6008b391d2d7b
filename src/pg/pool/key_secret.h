// key_secret.h - opening the secrets of a pool's keys.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/status.h"
#include "pg/pool/pool_cache.h"

// Opens the secret of a key into the buffer of secrets.h.
keypool::Status open_pool_secret(const Pool &pool, uint32 index);

// Whether a key's secret opens. Found out once per key and keyring, before the key is ever reserved: neither the stored
// value nor the keyring can change without that being forgotten. Only the first key of a walk whose master key is
// missing (`*problem` is still ok) is tried again, to tell which master key that is; and that looks whether the keyring
// has it by now. Warns once of each that does not.
bool key_secret_opens(Pool *pool, uint32 index, keypool::Status *problem);

// Forgets which secrets open if another keyring was loaded since.
void match_keyring(Pool *pool);
