// key_admin.h - the statements that add and change keys.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/key_id.h"
#include "pg/secrets/new_secrets.h"
#include "pg/sql/settings_json.h"

// Adds a key. A secret without a fingerprint is keypool::kNoSecret.
void insert_key(const keypool::KeyId &id, Datum provider, const NewSecret &secret, const Settings &settings);

// Changes what is given, which is something; or replaces the secret. Returns how many keys have this id.
uint64 update_key(const keypool::KeyId &id, const Settings &settings);
uint64 replace_secret(const keypool::KeyId &id, const NewSecret &secret);
