// settle_call.h - ending a call: keypool_record, keypool_release and keypool_mark_429, over all meters of the call.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/quota/call.h"
#include "core/status.h"
#include "pg/catalog/privileges.h"
#include "pg/pool/pool_cache.h"

// A number that a caller gives, or not.
struct GivenAmount {
  bool given;
  int64 amount;
};

struct Settlement {
  keypool::KeyId key;
  keypool::Ending ending;
  bool has_lease;
  std::string_view lease;  // 45 characters, or it is refused
  GivenAmount tokens;      // not given: what the lease estimates (kRecorded), without a lease or after a 429 none
  GivenAmount output;
  GivenAmount cached;
  GivenAmount cost;
  std::string_view model;  // without a lease: quotas for it count, too; empty: none
  double cooldown;         // kLimited: seconds; negative or not a number: clamped, see `notice`
  bool has_cooldown;       // else the provider's, or keypool.default_cooldown
  std::string_view scope;  // kLimited: empty, quota, key, model, account or quota:NAME
};

struct Settled {
  enum Kind : uint8 { kCounted, kBefore, kNoSuchKey, kBadLease } kind;
  keypool::TimeUs blocked_until;  // kLimited
  keypool::Status problem;        // kBadLease
};

// Ends a call, durable as synchronous_commit says (kReleased: never waited for). Tells what it had to clamp, and a
// lease that is too old to be settled, with a NOTICE. Raises 42501 if the user does not have the right on the key's
// provider; what a list of calls should skip comes back by value. kBadLease with kLimited: the key cools all the same.
Settled settle_call(const Settlement &settlement, Right right);

// Ends the cooldowns of a key; of a quota of a provider; or of all of its quotas. KP404 if there is no such key or
// quota.
void clear_blocks_of_key(const keypool::KeyId &key);
void clear_blocks_of_quotas(std::string_view provider, std::string_view quota, bool all);
