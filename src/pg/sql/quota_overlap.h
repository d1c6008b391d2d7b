// quota_overlap.h - which quotas can apply to one request, and whether they are more than one call can settle.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/key_id.h"
#include "core/quota/lease.h"
#include "pg/pool/provider_rules.h"

// What of a quota says to which requests it applies.
struct QuotaScope {
  keypool::KeyId id;
  std::string_view name;
  std::string_view account;  // empty: the whole provider
  ModelRule models;
};

// Of a row that was taken apart. Points into it.
QuotaScope scope_of_quota(const Datum *values, const bool *nulls);

// Whether some request, with a key of some account, meets both. Where patterns leave that open, yes.
bool quotas_overlap(const QuotaScope &one, const QuotaScope &other);

// Finds kMaxQuotas quotas that overlap with each other and with this one: together they are one too many.
bool find_crowd(const QuotaScope &quota, const QuotaScope *others, int count,
                const QuotaScope *(&crowd)[keypool::kMaxQuotas]);

// The names of such a crowd among all quotas, as the transaction sees them; null if there is none.
char *find_crowd_anywhere(void);
