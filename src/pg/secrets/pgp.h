// pgp.h - secrets that come as OpenPGP messages, so that nobody types one.
//
// The messages are opened by pgcrypto with the server's secret key. keypool.pgp_secret_key_file names a private file
// (private_file.h) that holds two ASCII-armored blocks: the secret key without a passphrase, and the public key.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

// Whether a value is an ASCII-armored OpenPGP message.
bool is_pgp_message(std::string_view value);

// Opens a message; the plaintext, without a trailing line end, is palloc'd and wiped with its context. Raises 22023 if
// it does not open, KP401 if the server's key cannot be used.
text *open_pgp_message(std::string_view message);
