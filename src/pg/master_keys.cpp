// master_keys.cpp - loading the keyring.
#include "pg/master_keys.h"

#include <openssl/crypto.h>
#include <sys/stat.h>

#include "pg/door.h"
#include "pg/private_file.h"
#include "pg/report.h"
#include "pg/settings.h"

using keypool::Code;
using keypool::Failure;
using keypool::Status;

// What tells one state of the keyring's source from another.
struct Source {
  char command[MAXPGPATH];  // empty: the file it is
  TimestampTz reloaded_at;  // of the configuration; makes a command run again
  char path[MAXPGPATH];
  int error;  // errno of stat, 0 if the file could be looked at
  struct stat attributes;
};

static keypool::Keyring loaded;
static uint32 generation = 1;
static Status problem;         // why the source is of no use; ok if `loaded` is what it says
static Status logged_problem;  // the last that was written to the log
static Source seen;            // the source that `problem` speaks of
static bool ever_checked = false;
static TimestampTz checked_at = 0;

static Source identify(void) {
  Source source;
  memset(&source, 0, sizeof(source));
  if (keypool_master_key_command[0] != '\0') {
    strlcpy(source.command, keypool_master_key_command, sizeof(source.command));
    source.reloaded_at = PgReloadTime;
    return source;
  }
  strlcpy(source.path, keypool_master_key_file, sizeof(source.path));
  if (source.path[0] != '\0' && stat(source.path, &source.attributes) != 0) source.error = errno;
  source.attributes.st_atim = {};  // reading it is no change
  return source;
}

static Status read_keyring_file(const Source &file, char *buffer, size_t *size) {
  static const char *const kWhat = "the keyring";
  if (file.path[0] == '\0')
    return Failure(Code::kKeyring, "there is no master key: keypool.master_key_file is not set");
  if (file.error != 0) return Failure(Code::kKeyring, "%s cannot be read: %s", kWhat, strerror(file.error));
  return private_file_read(kWhat, file.path, buffer, size);
}

// Runs the command, which prints the keyring; a failed one counts for nothing, whatever it printed.
static Status read_command(const char *command, char *buffer, size_t *size) {
  FILE *output = OpenPipeStream(command, "r");
  if (output == nullptr) return Failure(Code::kKeyring, "the master key command cannot be run: %s", strerror(errno));
  *size = fread(buffer, 1, kMaxPrivateFile, output);
  bool too_long = *size == kMaxPrivateFile && fgetc(output) != EOF;
  int result = ClosePipeStream(output);
  if (result != 0) {
    char *reason = wait_result_to_str(result);
    Status status = Failure(Code::kKeyring, "the master key command failed: %s", reason);
    pfree(reason);
    return status;
  }
  if (too_long) return Failure(Code::kKeyring, "the master key command prints more than %zu bytes", kMaxPrivateFile);
  return {};
}

static Status load(const Source &source) {
  static char buffer[kMaxPrivateFile];
  static keypool::Keyring fresh;
  size_t size = 0;
  Status status = source.command[0] != '\0' ? read_command(source.command, buffer, &size)
                                            : read_keyring_file(source, buffer, &size);
  if (status.ok()) status = call_core([&] { return keypool::ParseKeyring({buffer, size}, &fresh); });
  OPENSSL_cleanse(buffer, size);
  if (status.ok()) {
    keypool::MoveKeyring(&fresh, &loaded);
    ++generation;
  }
  return status;
}

void master_keys_check_now(void) {
  Source source = identify();
  bool unchanged = ever_checked && memcmp(&source, &seen, sizeof(source)) == 0;
  checked_at = GetCurrentTimestamp();
  if (unchanged && problem.ok()) return;
  ever_checked = true;
  seen = source;
  // Stays so if loading raises.
  problem = Failure(Code::kKeyring, "the keyring was not loaded");
  problem = load(source);
  bool news = strcmp(problem.message, logged_problem.message) != 0;
  logged_problem = problem;
  if (news && !problem.ok())
    ereport(LOG, errmsg("keypool: %s", problem.message),
            source.command[0] != '\0' ? 0 : errdetail_log("The keyring is \"%s\".", source.path),
            loaded.count > 0 ? errhint("The keyring that was loaded before is still used to open secrets.") : 0);
}

void master_keys_check(void) {
  TimestampTz now = GetCurrentTimestamp();
  bool due = now < checked_at || TimestampDifferenceExceeds(checked_at, now, 1000);  // or the clock stepped back
  if (!ever_checked || due) master_keys_check_now();
}

keypool::Keyring *master_keys(void) { return &loaded; }
uint32 master_keys_generation(void) { return generation; }
const Status &master_keys_problem(void) { return problem; }

const keypool::MasterKey *master_keys_primary(void) {
  master_keys_check_now();
  report_status(problem);
  if (loaded.count == 0) elog(ERROR, "keypool: the keyring is empty");  // ParseKeyring lets none pass
  return &loaded.keys[0];
}
