// privileges.h - which role may do what with which provider.
//
// EXECUTE on a function is what lets a role call it; a row of keypool.grants is what lets it reach a provider's keys
// (or, without a provider, all of them). keypool_grant() gives both. Superusers and the owner of keypool's tables pass;
// membership counts, as for PostgreSQL's own rights.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

enum class Right : uint8 {
  kApp,       // select, record, release, mark a 429
  kMonitor,   // list, usage
  kPeek,      // either of these
  kOperator,  // everything
};

// Whether the current user has a right on a provider.
bool privileges_allow(Right right, std::string_view provider);

// Raises 42501 if not.
void privileges_require(Right right, std::string_view provider);

// Raises 42501 if the current user does not have the right on all providers.
void privileges_require_everywhere(Right right);

// Changes whenever an answer of the above may have changed.
uint64 privileges_version(void);

void privileges_init(void);

// Whether a role has all rights: a superuser, or one with the rights of the tables' owner.
bool is_owner(Oid user);
