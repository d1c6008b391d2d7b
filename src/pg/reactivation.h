// reactivation.h - keys that were switched off for a time come back.
#pragma once

#include "pg/postgres_api.h"

#include <string_view>

#include "core/key_state.h"

// Switches on those inactive keys of a provider whose inactive_until has passed. An ordinary UPDATE, except that it
// never waits: a row that another session has locked is left alone.
void reactivate_keys(std::string_view provider, keypool::TimeUs now);
