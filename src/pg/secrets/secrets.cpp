// secrets.cpp - sealing and opening the secrets of rows.
#include "pg/secrets/secrets.h"

#include <openssl/crypto.h>

#include "pg/secrets/master_keys.h"
#include "pg/server/arguments.h"
#include "pg/server/core_call.h"
#include "pg/server/report.h"
#include "pg/server/utf8.h"

using keypool::Code;
using keypool::Status;

text *seal_utf8(std::string_view secret, const keypool::SecretOwner &owner) {
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

text *seal_secret(std::string_view secret, const keypool::SecretOwner &owner) {
  return seal_utf8(utf8_of_text(secret, "key_value"), {owner.id, utf8_of_provider(owner.provider)});
}

// The one opened secret. Text of other encodings may be longer than in UTF-8, but not twice.
static struct {
  size_t size;    // 0: none is opened
  bool outdated;  // sealed by a version that bound and sealed text of the database's encoding
  alignas(int32) union {
    text header;
    char space[VARHDRSZ + 2 * keypool::kMaxSecretBytes];
  } value;
} opened;

text *opened_secret(void) {
  SET_VARSIZE(&opened.value, VARHDRSZ + opened.size);
  return &opened.value.header;
}

void opened_secret_wipe(void) {
  if (opened.size == 0) return;
  OPENSSL_cleanse(VARDATA(&opened.value), opened.size);
  opened.size = 0;
}

bool opened_secret_is_outdated(void) { return opened.outdated; }

static Status open_bound_to(const keypool::StoredSecret &stored, const keypool::SecretOwner &owner) {
  return call_core([&] { return keypool::Open(master_keys(), stored, owner, VARDATA(&opened.value), &opened.size); });
}

// Opens what is bound to the provider in UTF-8, or else in the database's encoding.
static Status open_bound(const keypool::StoredSecret &stored, const keypool::SecretOwner &owner) {
  opened.outdated = false;
  std::string_view provider = utf8_of_provider(owner.provider);
  Status status = open_bound_to(stored, {owner.id, provider});
  if (status.code != Code::kNotAuthentic || provider == owner.provider) return status;
  opened.outdated = true;
  return open_bound_to(stored, owner);
}

// Whether what was opened is text, brought into the database's encoding. What is no UTF-8 was sealed in that.
static bool take_opened_text(keypool::SecretForm form) {
  char *out = VARDATA(&opened.value);
  if (opened.size == 0 || memchr(out, '\0', opened.size) != nullptr) return false;
  int size = static_cast<int>(opened.size);
  if (utf8_is_native() || form == keypool::SecretForm::kPlain) return pg_verifymbstr(out, size, true);
  if (utf8_to_database({out, opened.size}, out, 2 * keypool::kMaxSecretBytes, &opened.size)) {
    if (static_cast<int>(opened.size) < size) OPENSSL_cleanse(out + opened.size, size - opened.size);
    return true;
  }
  if (pg_verify_mbstr(PG_UTF8, out, size, true)) return false;
  opened.outdated = true;
  return pg_verifymbstr(out, size, true);
}

static Status try_open(const keypool::StoredSecret &stored, const keypool::SecretOwner &owner) {
  opened_secret_wipe();
  Status status = open_bound(stored, owner);
  if (!status.ok()) return status;
  bool is_text = take_opened_text(stored.form);
  if (is_text && !keypool::ClaimsEncryption({VARDATA(&opened.value), opened.size})) return status;
  opened_secret_wipe();
  if (is_text) return keypool::Failure(Code::kNotAuthentic, "the secret is malformed");
  return keypool::Failure(Code::kNotAuthentic, "the secret is not text in the database's encoding");
}

Status open_secret(const keypool::StoredSecret &stored, const keypool::SecretOwner &owner) {
  Status status = try_open(stored, owner);
  if (status.code == Code::kNotAuthentic && !master_keys_stand_doubt()) return try_open(stored, owner);
  if (status.code != Code::kMissingMasterKey) return status;
  uint32 before = master_keys_generation();
  master_keys_check_locked();
  return master_keys_generation() == before ? status : try_open(stored, owner);
}

static void on_transaction_end(XactEvent, void *) { opened_secret_wipe(); }
static void on_subtransaction_end(SubXactEvent, SubTransactionId, SubTransactionId, void *) { opened_secret_wipe(); }

void secrets_init(void) {
  RegisterXactCallback(on_transaction_end, nullptr);
  RegisterSubXactCallback(on_subtransaction_end, nullptr);
}
