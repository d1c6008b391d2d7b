// source_table.h - the rows of somebody else's table, read without running any code of theirs.
//
// A query would not do: policies, expressions of indexes and statistics, the definition of what has taken a table's
// place by then, and another server's user mapping run as whoever reads, who may be a superuser.
#pragma once

#include "pg/server/postgres_api.h"

// Reads columns of a table, with its partitions or children, as the transaction's snapshot sees them, for the SPI
// connection of the caller: until SPI_finish, its statements see the rows as the relation `name`. The list of columns
// ends with null. Keeps the table locked until the transaction's end.
//
// Raises 42809 for what is not a plain table or has columns of types that are not PostgreSQL's own, 42703 if a column
// is missing, 42501 if the user may not read the table, or not all of its rows.
void source_table_read(Oid table, const char *const *columns, const char *name);
