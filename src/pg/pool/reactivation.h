// reactivation.h - keys that were switched off for a time come back.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/key_state.h"

// Switches on those inactive keys of a provider whose inactive_until has passed. An ordinary UPDATE, except that it
// never waits and never fails for what others do: a row that another session has locked is left alone, and so are all
// of them while the table is locked, or in a transaction whose snapshot is older than the statement.
void try_to_reactivate_keys(std::string_view provider, keypool::TimeUs now);
