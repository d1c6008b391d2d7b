// master_keys.cpp - loading the keyring.
#include "pg/secrets/master_keys.h"

#include <openssl/crypto.h>
#include <sys/stat.h>

#include "core/secret/envelope.h"
#include "pg/secrets/known_master_keys.h"
#include "pg/secrets/master_key_command.h"
#include "pg/server/core_call.h"
#include "pg/server/private_file.h"
#include "pg/server/private_memory.h"
#include "pg/server/report.h"
#include "pg/server/settings.h"

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

// What holds key material.
struct KeyMaterial {
  keypool::Keyring loaded;
  keypool::Keyring fresh;  // on its way to `loaded`
  char text[kMaxPrivateFile];
};

// `material->loaded` is what `seen` said when `problem` is ok; else what it said before.
static struct {
  KeyMaterial *material;
  uint32 generation;        // of what is loaded
  uint32 compared;          // the generation that was compared with the known master keys
  keypool::Status problem;  // why the source is of no use; ok if the loaded keyring is what it says
  keypool::Status logged;   // the last that was written to the log
  Source seen;              // the source that `problem` speaks of
  bool ever_checked;
  TimestampTz checked_at;
  int failures;           // of the command in a row
  TimestampTz failed_at;  // the last of them
} session = {.generation = 1};

static KeyMaterial *key_material(void) {
  static KeyMaterial fallback;  // in core files, but there
  if (session.material == nullptr)
    session.material = static_cast<KeyMaterial *>(private_memory_allocate(sizeof(KeyMaterial)));
  if (session.material == nullptr) session.material = &fallback;
  return session.material;
}

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

// Keeps the copies of the keys that the cipher library holds from core files.
static Status prepare(keypool::Keyring *keyring) {
  Status status = call_core([&] { return keypool::PrepareOpeners(keyring); });
  const keypool::MasterKey *keys = keyring->keys;
  if (status.ok()) private_memory_hide_copies(keys[0].bytes, sizeof(keys[0].bytes), sizeof(keys[0]), keyring->count);
  return status;
}

static Status load(const Source &source) {
  KeyMaterial *place = key_material();
  size_t size = 0;
  keypool::WipeKeyring(&place->fresh);  // of a load that raised an error
  Status status = source.command[0] != '\0'
                      ? master_key_command_run(source.command, place->text, sizeof(place->text), &size)
                      : read_keyring_file(source, place->text, &size);
  if (status.ok()) status = call_core([&] { return keypool::ParseKeyring({place->text, size}, &place->fresh); });
  OPENSSL_cleanse(place->text, sizeof(place->text));
  // The first one is compared when it is doubted: that spares each new session the opening of a table.
  if (status.ok() && session.generation > 1) status = known_master_keys_compare(place->fresh);
  if (status.ok()) status = prepare(&place->fresh);
  if (!status.ok()) {
    keypool::WipeKeyring(&place->fresh);
    return status;
  }
  keypool::MoveKeyring(&place->fresh, &place->loaded);
  ++session.generation;
  return status;
}

// Whether the command failed so short a time ago that it is not run again: 1 s after the first failure, then twice as
// long each time, up to a minute.
static bool is_too_early(void) {
  static constexpr int kLongestWait = 60;
  int seconds = session.failures > 6 ? kLongestWait : Min(1 << Max(session.failures - 1, 0), kLongestWait);
  TimestampTz now = GetCurrentTimestamp();
  return session.failures > 0 && now >= session.failed_at &&
         !TimestampDifferenceExceeds(session.failed_at, now, seconds * 1000);
}

static void log_problem(void) {
  bool news = strcmp(session.problem.message, session.logged.message) != 0;
  session.logged = session.problem;
  if (!news || session.problem.ok()) return;
  ereport(LOG, errmsg("keypool: %s", session.problem.message),
          session.seen.path[0] == '\0' ? 0 : errdetail_log("The keyring is \"%s\".", session.seen.path),
          key_material()->loaded.count > 0
              ? errhint("The keyring that was loaded before is still used to open secrets.")
              : 0);
}

static void check(bool may_repeat_command) {
  Source source = identify();
  bool unchanged = session.ever_checked && memcmp(&source, &session.seen, sizeof(source)) == 0;
  bool may_repeat = source.command[0] == '\0' || (may_repeat_command && !is_too_early());
  session.checked_at = GetCurrentTimestamp();
  if (unchanged && (session.problem.ok() || !may_repeat)) return;
  if (!unchanged) session.failures = 0;
  session.ever_checked = true;
  session.seen = source;
  // Stays so if loading raises.
  session.problem = Failure(Code::kKeyring, "the keyring was not loaded: the last attempt was interrupted");
  ++session.failures;
  session.failed_at = session.checked_at;
  session.problem = load(source);
  if (session.problem.ok()) session.failures = 0;
  session.failed_at = GetCurrentTimestamp();
  log_problem();
}

bool master_keys_stand_doubt(void) {
  if (session.compared == session.generation) return true;
  session.compared = session.generation;
  Status status = known_master_keys_compare(*master_keys());
  if (status.ok()) return true;
  keypool::WipeKeyring(master_keys());
  ++session.generation;
  session.problem = status;
  log_problem();
  return false;
}

void master_keys_check_now(void) { check(true); }
void master_keys_check_locked(void) { check(false); }

void master_keys_check(void) {
  TimestampTz now = GetCurrentTimestamp();
  bool due = now < session.checked_at ||
             TimestampDifferenceExceeds(session.checked_at, now, 1000);  // or the clock stepped back
  bool reloaded = keypool_master_key_command[0] != '\0' && session.seen.reloaded_at != PgReloadTime;
  if (!session.ever_checked || due || reloaded) master_keys_check_now();
}

keypool::Keyring *master_keys(void) { return &key_material()->loaded; }
uint32 master_keys_generation(void) { return session.generation; }
const Status &master_keys_problem(void) { return session.problem; }

Status master_keys_diagnosis(void) {
  master_keys_check_now();
  return session.problem.ok() ? known_master_keys_compare(*master_keys()) : session.problem;
}

const keypool::MasterKey *master_keys_primary(void) {
  master_keys_check_now();
  report_status(session.problem);
  keypool::Keyring *keyring = master_keys();
  if (keyring->count == 0) elog(ERROR, "keypool: the keyring is empty");  // ParseKeyring lets none pass
  known_master_keys_enter(keyring, keyring->keys[0]);
  return &keyring->keys[0];
}
