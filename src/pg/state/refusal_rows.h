// refusal_rows.h - the rows of keypool.refusals: how often a provider had no key to give.
//
// One row a provider, changed in place under the lock of its page, without WAL. Made with the provider's first key. If
// two sessions make it at once there are two, of which all use the first.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/quota/refusal_counts.h"

// Makes the row of a provider, as part of this transaction, if it has none.
void refusal_rows_add(std::string_view provider);

// Copies it; zeros if there is none.
void refusal_rows_read(std::string_view provider, keypool::RefusalCounts *counts);

// Adds to it what a session has refused (keypool::AddRefusals, which says `*became_short`); nothing if it is not there.
// False, with nothing done, while the table is being rewritten: it is not waited for.
bool refusal_rows_post(std::string_view provider, const uint32_t (&refused)[keypool::kRefused],
                       keypool::TimeUs first_at, keypool::TimeUs now, bool *became_short);
