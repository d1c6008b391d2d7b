// secrets.h - sealing and opening the secrets of rows.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/secret/envelope.h"

// Seals a secret for its row under the primary master key. The result is palloc'd. Raises KP401 without a usable
// keyring, 22023 for a secret that is empty or too long.
text *seal_secret(std::string_view secret, const keypool::SecretOwner &owner);

// The same for a secret and a provider that are UTF-8 already.
text *seal_utf8(std::string_view secret, const keypool::SecretOwner &owner);

// Opens a stored secret into the module's one buffer. It stays there until opened_secret_wipe, the next opening, or the
// end of the (sub)transaction, errors included. A secret that names a master key which is not loaded makes the keyring
// be looked at again. Never raises.
keypool::Status open_secret(const keypool::StoredSecret &stored, const keypool::SecretOwner &owner);

// What was opened; empty if that failed, or if it was wiped.
text *opened_secret(void);
void opened_secret_wipe(void);

// Whether it was sealed by a version that bound and sealed text of the database's encoding, and should be sealed again.
bool opened_secret_is_outdated(void);

void secrets_init(void);
