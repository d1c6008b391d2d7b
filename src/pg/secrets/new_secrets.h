// new_secrets.h - taking in a secret as somebody gave it.
#pragma once

#include "pg/server/postgres_api.h"

#include "pg/secrets/secrets.h"

// What a key's row holds of its secret.
struct NewSecret {
  text *sealed;
  bytea *fingerprint;
};

// What a key has beside its secret. Keys of a provider that have one secret differ in it: a secret of a cloud may serve
// several accounts or deployments. Null: none.
struct SecretUse {
  text *account;
  struct varlena *attributes;  // jsonb
};

// Takes in the secret of a key whose provider is new to it: plaintext, or an OpenPGP message to this server, which is
// opened first. White space at its ends is cut, with a NOTICE; what cannot be a secret is refused (22023), and so is
// one that another key of the provider has for the same use (KP409), as far as the keyring can tell. Until the
// transaction ends, no other adds a secret to this provider. `key` is what messages call the row, or null.
NewSecret take_new_secret(std::string_view given, const keypool::SecretOwner &owner, const SecretUse &use,
                          const char *key);

// Raises KP409 likewise for a key whose secret stays, and has this fingerprint, and whose use changes to this one.
void check_new_use(const keypool::SecretOwner &owner, bytea *fingerprint, const SecretUse &use, const char *key);

// Raises 22023 if a new key may not have this provider, or a key may not have this label.
void check_new_provider(std::string_view provider, const char *key);
void check_new_label(std::string_view label, const char *key);

// The fingerprint of a secret that was opened, under the first master key of the keyring; null if that is empty.
bytea *fingerprint_secret(std::string_view secret, const keypool::SecretOwner &owner);
