// settle_call.h - ending a call over all of its meters: keypool_record, keypool_release, keypool_mark_429 and
// keypool_report.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/provider/answer.h"
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
  std::string_view lease;  // 48 characters, or it is refused
  bool refused;            // the provider has not served it: what is not given was not used
  GivenAmount tokens;      // not given: what the lease estimates; without a lease, or if it was refused, none
  GivenAmount output;
  GivenAmount cached;
  GivenAmount cost;
  std::string_view model;            // without a lease: quotas for it count, too; empty: none
  double cooldown;                   // kLimited: seconds; negative or not a number: clamped, with a NOTICE
  bool has_cooldown;                 // else until the end of `used_up`, or the provider's, or keypool.default_cooldown
  std::string_view scope;            // kLimited: empty, quota, key, model, account or quota:NAME
  keypool::AllowancePeriod used_up;  // kLimited: kDay or kMonth, of which a limit is used up
  // What that says of breakers, if the call ends by its lease.
  keypool::Health health;
  keypool::BreakerRule failure;  // kFailed
  bool fails_account;            // kFailed: it is the fault of the account's quotas; else of the key
  bool spares_pool;              // kFailed: a breaker opens only while it takes out at most half of the provider's keys
  // What the provider says remains of its limits, and when it said so; null: nothing. `age_known`: the caller says how
  // old that is; else it is heard only of a call that was short.
  const keypool::Answer *answer;
  keypool::TimeUs written;
  bool age_known;
};

struct Settled {
  enum Kind : uint8 { kCounted, kBefore, kNoSuchKey, kBadLease } kind;
  keypool::TimeUs blocked_until;  // kLimited; else of a breaker that has opened, or of a key that is suspect
  uint32 failures;                // kFailed: so many in a row, this one included
  keypool::Status problem;        // kBadLease
};

// Ends a call, durable as synchronous_commit says (kReleased: never waited for). Tells what it had to clamp, and a
// lease that is too old to be settled, with a NOTICE. Raises 42501 if the user does not have the right on the key's
// provider; what a list of calls should skip comes back by value. kBadLease with kLimited: the key cools all the same.
Settled settle_call(const Settlement &settlement, Right right);
