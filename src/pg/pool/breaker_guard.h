// breaker_guard.h - keeps failures whose cause may be elsewhere from taking out all keys of a provider.
//
// A proxy that answers 401 to everything must not switch off a pool. So the breakers of at most half of a provider's
// keys, but of one at least, are open at once because of such failures; one session at a time decides that.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/quota/breaker.h"
#include "pg/catalog/privileges.h"
#include "pg/pool/pool_cache.h"

struct BreakerGuard {
  bool held;
  LOCKTAG lock;
};

enum class GuardSays : uint8 {
  kWouldNotOpen,  // as the meter was. Nothing is held; if that has changed, ask again
  kMayOpen,
  kOnlySuspects,  // half of the keys are out already
};

// Whether this failure of a call of the key may open its breaker. If it would, nobody else decides about the provider
// until breaker_guard_end, or the transaction ends. Raises 42501 if the user may not settle calls of the key.
GuardSays breaker_guard_begin(const keypool::KeyId &key, const keypool::BreakerRule &failure,
                              keypool::Second selected_in, Right right, BreakerGuard *guard);
void breaker_guard_end(BreakerGuard *guard);
