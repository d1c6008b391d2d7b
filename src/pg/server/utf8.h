// utf8.h - text of the database as UTF-8.
//
// What is sealed, bound and hashed is UTF-8, so that it means the same after a dump of one database is restored into
// one of another encoding. Text of SQL_ASCII is of no known encoding, and its bytes are taken as they are. In databases
// of these two nothing is converted.
#pragma once

#include "pg/server/postgres_api.h"

#include <string_view>

// Whether the database's text is taken as it is.
inline bool utf8_is_native(void) { return GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII; }

// A text as UTF-8: itself, or a copy that is wiped with the current memory context. Raises 22P05 for a character that
// Unicode lacks; `argument` is what the message calls the text.
std::string_view utf8_of_text(std::string_view given, const char *argument);

// The name of a provider as UTF-8: itself, or a text that holds until the next call. One that cannot be converted stays
// as it is. Never raises for what it is given.
std::string_view utf8_of_provider(std::string_view provider);

// Writes UTF-8 in the database's encoding. False if it is no UTF-8, holds a character that the encoding lacks, or does
// not fit. For databases whose text is not taken as it is.
bool utf8_to_database(std::string_view utf8, char *out, Size capacity, Size *size);
