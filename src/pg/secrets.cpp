// secrets.cpp - sealing and opening the secrets of rows.
#include "pg/secrets.h"

#include "pg/door.h"
#include "pg/master_keys.h"
#include "pg/report.h"

using keypool::Code;
using keypool::Status;

text *seal_secret(std::string_view secret, const keypool::SecretOwner &owner) {
  const keypool::MasterKey *primary = master_keys_primary();
  uint8_t nonce[keypool::kNonceBytes];
  if (!pg_strong_random(nonce, sizeof(nonce)))
    ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random nonce"));
  auto *sealed = static_cast<char *>(palloc(keypool::kMaxSealedText + 1));
  size_t size = 0;
  report_status(call_core([&] { return keypool::Seal(*primary, nonce, owner, secret, sealed, &size); }));
  text *result = cstring_to_text_with_len(sealed, static_cast<int>(size));
  pfree(sealed);
  return result;
}

static Status try_open(const keypool::StoredSecret &stored, const keypool::SecretOwner &owner, char *out,
                       size_t *size) {
  Status status = call_core([&] { return keypool::Open(master_keys(), stored, owner, out, size); });
  if (!status.ok()) return status;
  if (*size == 0 || memchr(out, '\0', *size) != nullptr || !pg_verifymbstr(out, static_cast<int>(*size), true))
    return keypool::Failure(Code::kNotAuthentic, "the secret is not text in the database's encoding");
  return status;
}

Status open_secret(const keypool::StoredSecret &stored, const keypool::SecretOwner &owner, char *out, size_t *size) {
  Status status = try_open(stored, owner, out, size);
  if (status.code != Code::kMissingMasterKey) return status;
  uint32 before = master_keys_generation();
  master_keys_check_now();
  return master_keys_generation() == before ? status : try_open(stored, owner, out, size);
}
