// key_ids.h - key ids as PostgreSQL's uuid.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

#include "core/key_id.h"

// A new id for a key of this provider.
keypool::KeyId new_key_id(std::string_view provider);

keypool::KeyId key_id_from_datum(Datum uuid);

// The id as a palloc'd uuid.
Datum key_id_datum(const keypool::KeyId &id);
