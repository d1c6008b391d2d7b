// provider_changes.h - telling every session that one provider has changed: its keys, its quotas or its defaults.
//
// The server tells its processes what a transaction has changed in the catalogs: at once in the session that changes,
// at COMMIT in all others, on a standby with the replay of the COMMIT, and not at all after a rollback. A message names
// a catalog and the hash of an object's key in it, which is all that is needed here: a provider is announced as an
// object of pg_sequence whose number is a hash of its name. Should a sequence have that number, it is merely looked up
// anew; should two providers share a hash, both are.
//
// (The alternative, to invalidate an index of the table of keys, drops all that every session knows of all providers.
// It is what a server does that keypool is not tested with. To invalidate the table itself would also say that it may
// have been rewritten.)
//
// Messages are never merged, and each is 16 bytes of the COMMIT record: so a provider is announced once in each
// subtransaction that changes it, which is what its rollback undoes. Later commands of that subtransaction only note
// the change for their own session, which takes it in when the next command begins.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

void provider_changes_init(void);

// Announces a change of this transaction to all sessions, this one included.
void tell_provider_change(std::string_view provider);

// The same for a change of meters without their keys or quotas, which may be any provider's: to others it changes
// relations_version.
void tell_meters_change(Relation meters);

// Behaves as if such a change had been announced, in this session only.
void assume_provider_change(uint32 hash);

// What announcements name the provider by.
uint32 provider_change_hash(std::string_view provider);

// Lets no other transaction that calls this for the provider and this table go on until this one ends. Providers share
// a few locks, so that a transaction that changes many needs no more.
void lock_provider(Oid table, std::string_view provider);

// Announcements that came in since they were last taken. They come with invalidations (relations_version).
struct ProviderChanges {
  bool all;  // more than could be kept, or the server lost count
  int count;
  uint32 hashes[1024];
};

// Whether there is one that names such a provider.
bool provider_change_came(uint32 hash);

// All of them; they belong to the module, and hold until the next invalidation. From here on none has come.
const ProviderChanges &take_provider_changes(void);
