// commit_breakers.h - closing the breakers of keys when the transaction commits, or is prepared, that gave them
// another secret.
//
// What a provider said of the old secret says nothing of the new one. But until the commit the old one goes on serving,
// and after a rollback, too: what is said of it must stay, and what is said in between must not outlive it.
#pragma once

#include "core/key_id.h"

void commit_breakers_init(void);

// Of a key of this transaction's; not if its part of the transaction is rolled back.
void close_breaker_at_commit(const keypool::KeyId &key);
