// known_master_keys.h - keypool.master_keys: which master key this database knows by each id, told by its fingerprint.
//
// An id is entered when something is first sealed under it here, or when keypool_heal() first sees it open something. A
// keyring that has another key under a known id (a wrong file after a failover) is refused as a whole: nothing opens
// with it, and what it would seal would be lost with the right one. Before the extension is updated to 0.2.0 there is
// no such table, and no id is known.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/secret/keyring.h"

// kWrongMasterKey: names the first id of the keyring that is known for another key.
keypool::Status known_master_keys_compare(const keypool::Keyring &keyring);

// Enters a master key of the keyring that is about to seal. Raises KP401 if its id is known for another, or if secrets
// are sealed under the id and none of them opens with it.
void known_master_keys_enter(keypool::Keyring *keyring, const keypool::MasterKey &key);

// Enters one that has opened a secret under its id. Raises KP401 if the id is known for another.
void known_master_keys_enter_proven(keypool::Keyring *keyring, const keypool::MasterKey &key);

// Whether a row on its way into the table has an id that is known. Warns if it is known for another key.
bool known_master_keys_has(HeapTuple row, Relation table);
