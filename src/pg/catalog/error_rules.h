// error_rules.h - the rules of keypool.error_rules, which say of what class an answer is where the built-in ones do not
// do.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/provider/error_rules.h"

struct OwnErrorRules {
  int count;
  keypool::ErrorRule *rules;  // the first that fits holds: those of the longest pattern of providers first, and of
                              // these such with a code, then such with a status
  std::string_view *providers;  // the pattern of each
  std::string_view *scopes;     // of each, as of a 429; empty: the usual one
};

void error_rules_init(void);

// Whether there are any.
bool error_rules_exist(void);

// Those for a provider. They lie in the current memory context, what they point to in the cache.
OwnErrorRules error_rules_for(std::string_view provider);
