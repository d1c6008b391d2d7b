// secrets.cpp - sealing and opening the secrets of rows.
#include "pg/secrets.h"

#include <openssl/crypto.h>

#include "pg/arguments.h"
#include "pg/door.h"
#include "pg/master_keys.h"
#include "pg/pgp.h"
#include "pg/report.h"
#include "pg/statement_hiding.h"

using keypool::Code;
using keypool::Status;

struct WipedBytes {
  MemoryContextCallback callback;
  Size size;
  void *bytes;
};

static void wipe_bytes(void *wiped) {
  OPENSSL_cleanse(static_cast<WipedBytes *>(wiped)->bytes, static_cast<WipedBytes *>(wiped)->size);
}

void wipe_on_reset(void *bytes, Size size) {
  auto *wiped = static_cast<WipedBytes *>(palloc0(sizeof(WipedBytes)));
  wiped->bytes = bytes;
  wiped->size = size;
  wiped->callback.func = wipe_bytes;
  wiped->callback.arg = wiped;
  MemoryContextRegisterResetCallback(CurrentMemoryContext, &wiped->callback);
}

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

text *seal_given_secret(std::string_view given, const keypool::SecretOwner &owner) {
  if (!is_pgp_message(given)) return seal_secret(given, owner);
  text *secret = open_pgp_message(given);
  hide_given_secret(text_view(secret));
  if (!pg_verifymbstr(VARDATA(secret), VARSIZE(secret) - VARHDRSZ, true))
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("key_value is an OpenPGP message that does not hold text in the database's encoding"));
  return seal_secret(text_view(secret), owner);
}

static union {
  text header;
  char space[VARHDRSZ + keypool::kMaxSecretBytes];
} opened;
static size_t opened_size = 0;

text *opened_secret(void) {
  SET_VARSIZE(&opened, VARHDRSZ + opened_size);
  return &opened.header;
}

void opened_secret_wipe(void) {
  if (opened_size == 0) return;
  OPENSSL_cleanse(VARDATA(&opened), opened_size);
  opened_size = 0;
}

static Status try_open(const keypool::StoredSecret &stored, const keypool::SecretOwner &owner) {
  opened_secret_wipe();
  char *out = VARDATA(&opened);
  Status status = call_core([&] { return keypool::Open(master_keys(), stored, owner, out, &opened_size); });
  if (!status.ok()) return status;
  bool is_text = opened_size > 0 && memchr(out, '\0', opened_size) == nullptr &&
                 pg_verifymbstr(out, static_cast<int>(opened_size), true);
  if (is_text && !keypool::ClaimsEncryption({out, opened_size})) return status;
  opened_secret_wipe();
  if (is_text) return keypool::Failure(Code::kNotAuthentic, "the secret is malformed");
  return keypool::Failure(Code::kNotAuthentic, "the secret is not text in the database's encoding");
}

Status open_secret(const keypool::StoredSecret &stored, const keypool::SecretOwner &owner) {
  Status status = try_open(stored, owner);
  if (status.code != Code::kMissingMasterKey) return status;
  uint32 before = master_keys_generation();
  master_keys_check_now();
  return master_keys_generation() == before ? status : try_open(stored, owner);
}

static void on_transaction_end(XactEvent, void *) { opened_secret_wipe(); }
static void on_subtransaction_end(SubXactEvent, SubTransactionId, SubTransactionId, void *) { opened_secret_wipe(); }

void secrets_init(void) {
  RegisterXactCallback(on_transaction_end, nullptr);
  RegisterSubXactCallback(on_subtransaction_end, nullptr);
}
