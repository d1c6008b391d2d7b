// clear_blocks.h - ending the cooldowns of keys and quotas, and closing their breakers.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/key_id.h"

// Of a key; of a quota of a provider; or of all of its quotas. KP404 if there is no such key or quota.
void clear_blocks_of_key(const keypool::KeyId &key);
void clear_blocks_of_quotas(std::string_view provider, std::string_view quota, bool all);

// Its breaker alone: the key has another secret. For whoever may change that; nothing if there is no such key.
void close_breaker_of_key(const keypool::KeyId &key);
