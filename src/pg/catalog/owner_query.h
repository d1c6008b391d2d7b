// owner_query.h - statements on keypool's own tables, run as their owner.
//
// Nobody else has rights on them: the SQL functions are the way in, and EXECUTE on those is what is granted. As the
// server's foreign keys do, the statement runs with the owner's id in a local security context. Statements must qualify
// every name and operator: the search_path is the caller's.
#pragma once

#include "pg/server/postgres_api.h"

inline constexpr int kMaxQueryArguments = 32;  // more than a table has columns

struct QueryArguments {
  int count = 0;
  Oid types[kMaxQueryArguments];
  Datum values[kMaxQueryArguments];
  char nulls[kMaxQueryArguments];

  void Add(Oid type, Datum value, bool is_null = false) {
    Assert(count < kMaxQueryArguments);
    types[count] = type;
    values[count] = value;
    nulls[count++] = is_null ? 'n' : ' ';
  }
};

// Runs a statement that returns no rows; returns how many rows it changed.
uint64 owner_execute(const char *sql, const QueryArguments &arguments);

// The same for a statement that returns rows, in between SPI_connect and SPI_finish of the caller's: they are in
// SPI_tuptable.
uint64 owner_execute_connected(const char *sql, const QueryArguments &arguments);
