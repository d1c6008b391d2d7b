// new_secrets.cpp - taking in a secret as somebody gave it.
#include "pg/secrets/new_secrets.h"

extern "C" {
#include "utils/jsonb.h"
}

#include "core/provider_name.h"
#include "core/secret/given_text.h"
#include "core/secret/secret_fingerprint.h"
#include "pg/catalog/provider_changes.h"
#include "pg/catalog/relations.h"
#include "pg/secrets/master_keys.h"
#include "pg/secrets/pgp.h"
#include "pg/secrets/statement_hiding.h"
#include "pg/server/arguments.h"
#include "pg/server/core_call.h"
#include "pg/server/key_ids.h"
#include "pg/server/private_memory.h"
#include "pg/server/report.h"
#include "pg/server/utf8.h"

using keypool::KeyId;
using keypool::SecretOwner;
using keypool::Status;

// Raises what is wrong with a row, and which row that is.
static void refuse(const Status &status, const char *key) {
  if (status.code != keypool::Code::kInvalidArgument) report_status(status);
  if (status.ok()) return;
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", status.message),
          key != nullptr ? errdetail("The key is %s.", key) : 0);
}

static bytea *fingerprint_under(const keypool::MasterKey &master_key, std::string_view provider,
                                std::string_view secret) {
  uint8_t bytes[keypool::kSecretFingerprintBytes];
  report_status(call_core([&] { return keypool::FingerprintSecret(master_key, provider, secret, bytes); }));
  auto *result = static_cast<bytea *>(palloc(VARHDRSZ + sizeof(bytes)));
  SET_VARSIZE(result, VARHDRSZ + sizeof(bytes));
  memcpy(VARDATA(result), bytes, sizeof(bytes));
  return result;
}

bytea *fingerprint_secret(std::string_view secret, const SecretOwner &owner) {
  if (master_keys()->count == 0) return nullptr;
  return fingerprint_under(master_keys()->keys[0], utf8_of_provider(owner.provider), utf8_of_text(secret, "key_value"));
}

static bool same_account(HeapTuple row, TupleDesc columns, const text *account) {
  bool is_null;
  Datum other = heap_getattr(row, kKeysAccount, columns, &is_null);
  if (is_null || account == nullptr) return is_null && account == nullptr;
  return text_view(DatumGetTextPP(other)) == text_view(account);
}

static bool same_attributes(HeapTuple row, TupleDesc columns, struct varlena *attributes) {
  bool is_null;
  Datum other = heap_getattr(row, kKeysAttributes, columns, &is_null);
  if (is_null || attributes == nullptr) return is_null && attributes == nullptr;
  return compareJsonbContainers(&DatumGetJsonbP(other)->root, &DatumGetJsonbP(PointerGetDatum(attributes))->root) == 0;
}

[[noreturn]] static void refuse_as_known(Datum id, const char *key) {
  const char *known = DatumGetCString(DirectFunctionCall1(uuid_out, id));
  ereport(ERROR, errcode(ERRCODE_KEYPOOL_KNOWN_SECRET), errmsg("the provider already has this secret"),
          key != nullptr ? errdetail("Key %s has that of key %s.", key, known) : errdetail("Key %s has it.", known),
          errhint("Use that key: a second one with this secret would have limits of its own. For another account or "
                  "deployment, give it another account or other attributes."));
  pg_unreachable();
}

// Raises KP409 if another key of the provider has this fingerprint and this use.
static void refuse_known(Relation keys, Snapshot snapshot, const SecretOwner &owner, bytea *fingerprint,
                         const SecretUse &use, const char *key) {
  ScanKeyData conditions[2];
  TupleDesc columns = RelationGetDescr(keys);
  text *provider = cstring_to_text_with_len(owner.provider.data(), static_cast<int>(owner.provider.size()));
  ScanKeyInit(&conditions[0], kKeysProvider, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(provider));
  ScanKeyInit(&conditions[1], kKeysFingerprint, BTEqualStrategyNumber, F_BYTEAEQ, PointerGetDatum(fingerprint));
  SysScanDesc scan = systable_beginscan(keys, relations().provider_keys_by_fingerprint, true, snapshot, 2, conditions);
  while (HeapTuple row = systable_getnext(scan)) {
    bool is_null;
    Datum id = heap_getattr(row, kKeysId, columns, &is_null);
    if (key_id_from_datum(id) == owner.id) continue;
    if (same_account(row, columns, use.account) && same_attributes(row, columns, use.attributes))
      refuse_as_known(id, key);
  }
  systable_endscan(scan);
}

// Raises KP409 if another key of the provider has this secret for this use, under any master key. Both are UTF-8.
static void refuse_known_secret(const SecretOwner &owner, std::string_view provider, std::string_view secret,
                                const SecretUse &use, const char *key) {
  lock_provider(relations().provider_keys, owner.provider);
  Relation keys = table_open(relations().provider_keys, AccessShareLock);
  Snapshot snapshot = snapshot_of_now();
  for (int i = 0; i < master_keys()->count; ++i)
    refuse_known(keys, snapshot, owner, fingerprint_under(master_keys()->keys[i], provider, secret), use, key);
  UnregisterSnapshot(snapshot);
  table_close(keys, AccessShareLock);
}

void check_new_use(const SecretOwner &owner, bytea *fingerprint, const SecretUse &use, const char *key) {
  lock_provider(relations().provider_keys, owner.provider);
  Relation keys = table_open(relations().provider_keys, AccessShareLock);
  Snapshot snapshot = snapshot_of_now();
  refuse_known(keys, snapshot, owner, fingerprint, use, key);
  UnregisterSnapshot(snapshot);
  table_close(keys, AccessShareLock);
}

// Whether the database can give out what it takes in.
static bool has_equivalent(std::string_view utf8) {
  Size size;
  auto *converted = static_cast<char *>(palloc(Max(utf8.size(), 1)));
  wipe_on_reset(converted, utf8.size());
  return utf8_to_database(utf8, converted, utf8.size(), &size);
}

// The secret as UTF-8, taken out of its OpenPGP message if it came in one. That holds text in UTF-8, as the standard
// wants it, or in the database's encoding.
static std::string_view plaintext_of(std::string_view given) {
  if (!is_pgp_message(given)) return utf8_of_text(given, "key_value");
  text *opened = open_pgp_message(given);
  std::string_view secret = {VARDATA(opened), VARSIZE(opened) - VARHDRSZ};
  hide_given_secret(secret);
  int size = static_cast<int>(secret.size());
  if (!utf8_is_native() && has_equivalent(secret)) return secret;
  bool is_utf8 = !utf8_is_native() && pg_verify_mbstr(PG_UTF8, secret.data(), size, true);
  if (is_utf8 || !pg_verifymbstr(secret.data(), size, true))
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("key_value is an OpenPGP message that does not hold text in the database's encoding"));
  return utf8_of_text(secret, "key_value");
}

static std::string_view cut_white_space(std::string_view secret, const char *key) {
  std::string_view left = keypool::CutWhiteSpace(secret);
  if (left.empty() && !secret.empty())
    refuse(keypool::Failure(keypool::Code::kInvalidArgument, "key_value must not be white space alone"), key);
  if (left.size() < secret.size())
    ereport(NOTICE, errmsg("white space at the ends of key_value was cut"),
            key != nullptr ? errdetail("The key is %s.", key) : 0, errhidecontext(true));
  return left;
}

NewSecret take_new_secret(std::string_view given, const SecretOwner &owner, const SecretUse &use, const char *key) {
  std::string_view provider = utf8_of_provider(owner.provider);
  std::string_view secret = cut_white_space(plaintext_of(given), key);
  if (keypool::ClaimsEncryption(secret))
    refuse(keypool::Failure(keypool::Code::kInvalidArgument,
                            "key_value must be the provider's secret itself, not an encrypted form of it"),
           key);
  refuse(call_core([&] { return keypool::CheckGivenSecret(secret); }), key);
  text *sealed = seal_utf8(secret, {owner.id, provider});
  refuse_known_secret(owner, provider, secret, use, key);
  return {sealed, fingerprint_under(master_keys()->keys[0], provider, secret)};
}

void check_new_provider(std::string_view provider, const char *key) {
  provider = utf8_of_provider(provider);
  refuse(call_core([&] { return keypool::CheckNewProviderName(provider); }), key);
}

void check_new_label(std::string_view label, const char *key) {
  label = utf8_of_text(label, "key_label");
  refuse(call_core([&] { return keypool::CheckGivenLabel(label); }), key);
}
