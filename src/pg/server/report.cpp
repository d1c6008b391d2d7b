// report.cpp - the one place where a failure becomes a PostgreSQL error.
#include "pg/server/report.h"

#include "pg/server/settings.h"

using keypool::Code;

static int sqlstate_of(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return ERRCODE_INVALID_PARAMETER_VALUE;
    case Code::kKeyring:
    case Code::kWrongMasterKey:
    case Code::kMissingMasterKey:
      return ERRCODE_KEYPOOL_MASTER_KEY;
    case Code::kNotAuthentic:
      return ERRCODE_KEYPOOL_NOT_FOUND;
    case Code::kOk:
    case Code::kInternal:
      break;
  }
  return ERRCODE_INTERNAL_ERROR;
}

static const char *keyring_hint(void) {
  if (keypool_master_key_command[0] != '\0')
    return "keypool.master_key_command must print the keyring and exit with 0. What it wrote to its standard error is "
           "in the server's log.";
  return "keypool.master_key_file must name a file of mode 0600 that belongs to the server's user, with a line such as "
         " k1:<output of \"openssl rand -base64 32\">.  If the file was good before, correct it and keep its lines: "
         "they open the secrets.";
}

static const char *hint_of(Code code) {
  switch (code) {
    case Code::kKeyring:
      return keyring_hint();
    case Code::kWrongMasterKey:
      return "Put the right key of this id back into the keyring. Only if no secret that it sealed is needed any more, "
             "backups included, delete the row of this id from keypool.master_keys.";
    case Code::kMissingMasterKey:
      return "Put the missing line back into the keyring.";
    default:
      return nullptr;
  }
}

void report_status(const keypool::Status &status) {
  if (status.ok()) return;
  const char *hint = hint_of(status.code);
  ereport(ERROR, errcode(sqlstate_of(status.code)), errmsg("%s", status.message), hint ? errhint("%s", hint) : 0);
}

void report_unknown_key(void) {
  ereport(ERROR, errcode(ERRCODE_KEYPOOL_NOT_FOUND), errmsg("key does not exist"));
  pg_unreachable();
}

void report_if_read_only(const char *function, const char *also) {
  if (!XactReadOnly && !RecoveryInProgress()) return;
  bool standby = RecoveryInProgress();
  ereport(ERROR, errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
          standby ? errmsg("cannot execute %s() during recovery", function)
                  : errmsg("cannot execute %s() in a read-only transaction", function),
          errhint("%s%s",
                  standby ? "This is a standby: call it on the primary."
                          : "Call it on the primary, in a transaction that may write.",
                  also));
}
