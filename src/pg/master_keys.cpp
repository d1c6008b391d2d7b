// master_keys.cpp - loading the keyring.
#include "pg/master_keys.h"

extern "C" {
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
}

#include <openssl/crypto.h>

#include "pg/door.h"
#include "pg/report.h"
#include "pg/settings.h"

using keypool::Code;
using keypool::Failure;
using keypool::Status;

static constexpr size_t kMaxKeyringFile = 64 * 1024;

// What tells one state of the file from another.
struct FileIdentity {
  char path[MAXPGPATH];
  int error;  // errno of stat, 0 if it could be looked at
  struct stat attributes;
};

static keypool::Keyring loaded;
static uint32 generation = 1;
static Status problem;
static FileIdentity seen;
static bool ever_checked = false;
static TimestampTz checked_at = 0;

static FileIdentity identify(const char *path) {
  FileIdentity identity;
  memset(&identity, 0, sizeof(identity));
  strlcpy(identity.path, path, sizeof(identity.path));
  if (path[0] != '\0' && stat(path, &identity.attributes) != 0) identity.error = errno;
  identity.attributes.st_atim = {};  // reading it is no change
  return identity;
}

static Status check_access(const FileIdentity &file) {
  const struct stat &attributes = file.attributes;
  if (file.path[0] == '\0')
    return Failure(Code::kKeyring, "there is no master key: keypool.master_key_file is not set");
  if (file.error != 0) return Failure(Code::kKeyring, "the keyring cannot be read: %s", strerror(file.error));
  if (!S_ISREG(attributes.st_mode)) return Failure(Code::kKeyring, "the keyring is not a regular file");
  if (attributes.st_uid != geteuid() && attributes.st_uid != 0)
    return Failure(Code::kKeyring, "the keyring must belong to the server's user or to root");
  mode_t forbidden = attributes.st_uid == geteuid() ? S_IRWXG | S_IRWXO : S_IWGRP | S_IXGRP | S_IRWXO;
  if ((attributes.st_mode & forbidden) != 0)
    return Failure(Code::kKeyring,
                   "the keyring has group or world access; its mode must be 0600, or 0640 if it belongs to root");
  if (attributes.st_size > static_cast<off_t>(kMaxKeyringFile))
    return Failure(Code::kKeyring, "the keyring is larger than %zu bytes", kMaxKeyringFile);
  return {};
}

// Reads the file into the buffer; it is the caller who wipes that.
static Status read_file(const char *path, char *buffer, size_t *size) {
  int file = OpenTransientFile(path, O_RDONLY | PG_BINARY);
  if (file < 0) return Failure(Code::kKeyring, "the keyring cannot be read: %s", strerror(errno));
  ssize_t got;
  *size = 0;
  while (*size < kMaxKeyringFile && (got = read(file, buffer + *size, kMaxKeyringFile - *size)) > 0) *size += got;
  Status status;
  if (*size < kMaxKeyringFile && got < 0)
    status = Failure(Code::kKeyring, "the keyring cannot be read: %s", strerror(errno));
  CloseTransientFile(file);
  return status;
}

static Status load(const FileIdentity &file) {
  static char buffer[kMaxKeyringFile];
  static keypool::Keyring fresh;
  size_t size = 0;
  Status status = check_access(file);
  if (status.ok()) status = read_file(file.path, buffer, &size);
  if (status.ok()) status = call_core([&] { return keypool::ParseKeyring({buffer, size}, &fresh); });
  OPENSSL_cleanse(buffer, size);
  if (status.ok()) {
    keypool::MoveKeyring(&fresh, &loaded);
    ++generation;
  }
  return status;
}

void master_keys_check_now(void) {
  FileIdentity file = identify(keypool_master_key_file);
  checked_at = GetCurrentTimestamp();
  if (ever_checked && memcmp(&file, &seen, sizeof(file)) == 0) return;
  ever_checked = true;
  seen = file;
  problem = load(file);
  if (!problem.ok())
    ereport(LOG, errmsg("keypool: %s", problem.message), errdetail_log("The keyring is \"%s\".", file.path),
            loaded.count > 0 ? errhint("The keyring that was loaded before is still used to open secrets.") : 0);
}

void master_keys_check(void) {
  if (!ever_checked || TimestampDifferenceExceeds(checked_at, GetCurrentTimestamp(), 1000)) master_keys_check_now();
}

keypool::Keyring *master_keys(void) { return &loaded; }
uint32 master_keys_generation(void) { return generation; }
const Status &master_keys_problem(void) { return problem; }

const keypool::MasterKey *master_keys_primary(void) {
  master_keys_check_now();
  report_status(problem);
  return &loaded.keys[0];
}
