// attributes.h - what the attributes of a key may hold. They are given out with the key, and are not sealed.
#pragma once

#include "pg/server/postgres_api.h"

// Raises 22023 if they are no jsonb object, are longer than 8192 bytes, or hold a URL with a password. Warns of a name
// that looks like that of a secret. `row` says in the DETAIL which row is meant, or is null.
void check_attributes(Datum attributes, const char *row);
