// private_file.cpp - reading files that hold secrets.
#include "pg/server/private_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

using keypool::Code;
using keypool::Failure;
using keypool::Status;

static Status check(const char *what, const struct stat &attributes) {
  if (!S_ISREG(attributes.st_mode)) return Failure(Code::kKeyring, "%s is not a regular file", what);
  if (attributes.st_uid != geteuid() && attributes.st_uid != 0)
    return Failure(Code::kKeyring, "%s must belong to the server's user or to root", what);
  mode_t forbidden = attributes.st_uid == geteuid() ? S_IRWXG | S_IRWXO : S_IWGRP | S_IXGRP | S_IRWXO;
  if ((attributes.st_mode & forbidden) != 0)
    return Failure(Code::kKeyring, "%s has group or world access; its mode must be 0600, or 0640 if it belongs to root",
                   what);
  if (attributes.st_size > static_cast<off_t>(kMaxPrivateFile))
    return Failure(Code::kKeyring, "%s is larger than %zu bytes", what, kMaxPrivateFile);
  return {};
}

Status private_file_read(const char *what, const char *path, char *buffer, size_t *size) {
  *size = 0;
  // Not to wait for a FIFO; and what is checked is what is read.
  int file = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
  if (file < 0) return Failure(Code::kKeyring, "%s cannot be read: %s", what, strerror(errno));
  struct stat attributes;
  ssize_t got = fstat(file, &attributes);
  Status status;
  if (got == 0) status = check(what, attributes);
  while (got >= 0 && status.ok() && *size < kMaxPrivateFile) {
    got = read(file, buffer + *size, kMaxPrivateFile - *size);
    if (got <= 0) break;
    *size += got;
  }
  if (got < 0) status = Failure(Code::kKeyring, "%s cannot be read: %s", what, strerror(errno));
  CloseTransientFile(file);
  return status;
}
