// owner_query.cpp - statements on keypool's own tables, run as their owner.
#include "pg/catalog/owner_query.h"

#include "pg/catalog/relations.h"

uint64 owner_execute_connected(const char *sql, const QueryArguments &arguments) {
  Oid user;
  int context;
  GetUserIdAndSecContext(&user, &context);
  // An error leaves this to the abort of the transaction, which restores the user.
  SetUserIdAndSecContext(relations_owner(),
                         context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
  int result = SPI_execute_with_args(sql, arguments.count, const_cast<Oid *>(arguments.types),
                                     const_cast<Datum *>(arguments.values), arguments.nulls, false, 0);
  SetUserIdAndSecContext(user, context);
  if (result < 0) elog(ERROR, "keypool: statement failed: %s", SPI_result_code_string(result));
  return SPI_processed;
}

uint64 owner_execute(const char *sql, const QueryArguments &arguments) {
  SPI_connect();
  uint64 changed = owner_execute_connected(sql, arguments);
  SPI_finish();
  return changed;
}
