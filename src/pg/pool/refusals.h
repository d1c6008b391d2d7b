// refusals.h - what this session has refused, by provider and status.
//
// A session adds its refusals up, and posts those of a provider (refusal_rows.h) at once if it has posted none of it in
// the last second, else with the first selection a second later. So there is no hot row, and a session that goes idle
// keeps those of its last second to itself until it selects again.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/quota/refusal_counts.h"

// No table of meters may be locked.
void refusals_note(std::string_view provider, keypool::Refused why, keypool::TimeUs now);

// Posts what is due. Costs a look at one number if nothing is.
void refusals_post_due(void);
