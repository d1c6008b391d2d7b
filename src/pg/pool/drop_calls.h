// drop_calls.h - giving back the places of calls whose callers died.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/key_id.h"

// What the open calls of all keys and quotas of a provider hold, each meter by itself; or of one of its keys, and as
// much in the quotas that apply to it whatever the model. KP404 if it has no such key.
void drop_calls_of_provider(std::string_view provider);
void drop_calls_of_key(std::string_view provider, const keypool::KeyId &key);
