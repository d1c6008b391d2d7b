// pgp.cpp - opening OpenPGP messages with pgcrypto.
#include "pg/secrets/pgp.h"

extern "C" {
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "parser/parse_func.h"
}

#include <openssl/crypto.h>

#include <algorithm>

#include "core/secret/envelope.h"
#include "pg/server/arguments.h"
#include "pg/server/private_file.h"
#include "pg/server/private_memory.h"
#include "pg/server/report.h"
#include "pg/server/settings.h"

static constexpr std::string_view kMessageHeader = "-----BEGIN PGP MESSAGE-----";
static constexpr std::string_view kPublicHeader = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
static constexpr std::string_view kPublicFooter = "-----END PGP PUBLIC KEY BLOCK-----";
static constexpr std::string_view kSecretHeader = "-----BEGIN PGP PRIVATE KEY BLOCK-----";
static constexpr std::string_view kSecretFooter = "-----END PGP PRIVATE KEY BLOCK-----";

static constexpr int kSessionKeyPacket = 1;  // public-key encrypted session key
static constexpr int kProtectedPacket = 18;  // symmetrically encrypted and integrity protected data

// Twice what a secret of the greatest length needs. Bounds what a compressed message can grow to, too.
static constexpr size_t kMaxMessage = 4 * keypool::kMaxSecretBytes;

bool is_pgp_message(std::string_view value) {
  size_t start = value.find_first_not_of(" \t\r\n");
  return start != std::string_view::npos && value.substr(start).starts_with(kMessageHeader);
}

[[noreturn]] static void report_key_file(const char *problem) {
  ereport(
      ERROR, errcode(ERRCODE_KEYPOOL_MASTER_KEY), errmsg("%s", problem),
      errhint("Export the server's key with \"gpg --armor --export-secret-keys\" and \"gpg --armor --export\" into one "
              "file of mode 0600 that belongs to the server's user, and set keypool.pgp_secret_key_file to its path."));
  pg_unreachable();
}

static struct {
  char bytes[kMaxPrivateFile];
  size_t size;  // 0: it is wiped
} key_file;

static void wipe_key_file(void) {
  OPENSSL_cleanse(key_file.bytes, key_file.size);
  key_file.size = 0;
}

// Reads the file that holds the server's key; wipe_key_file ends it.
static std::string_view read_key_file(void) {
  static const char *const kWhat = "the OpenPGP key file";
  const char *path = keypool_pgp_secret_key_file;
  if (path[0] == '\0') report_key_file("there is no OpenPGP key: keypool.pgp_secret_key_file is not set");
  keypool::Status status = private_file_read(kWhat, path, key_file.bytes, &key_file.size);
  if (!status.ok()) {
    wipe_key_file();
    report_key_file(status.message);
  }
  return {key_file.bytes, key_file.size};
}

// One armored block of the file, or nothing.
static std::string_view find_block(std::string_view file, std::string_view header, std::string_view footer) {
  size_t start = file.find(header);
  size_t end = start == std::string_view::npos ? start : file.find(footer, start);
  if (end == std::string_view::npos) return {};
  return file.substr(start, end + footer.size() - start);
}

static Oid schema_of_extension(Oid extension) {
  Relation extensions = table_open(ExtensionRelationId, AccessShareLock);
  ScanKeyData condition;
  ScanKeyInit(&condition, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(extension));
  SysScanDesc scan = systable_beginscan(extensions, ExtensionOidIndexId, true, nullptr, 1, &condition);
  HeapTuple row = systable_getnext(scan);
  Oid schema = HeapTupleIsValid(row) ? ((Form_pg_extension)GETSTRUCT(row))->extnamespace : InvalidOid;
  systable_endscan(scan);
  table_close(extensions, AccessShareLock);
  return schema;
}

// A function of pgcrypto, wherever that extension was put.
static Oid pgcrypto_function(const char *name, int argument_count, const Oid *arguments) {
  Oid extension = get_extension_oid("pgcrypto", false);
  char *schema = get_namespace_name(schema_of_extension(extension));
  List *qualified = list_make2(makeString(schema), makeString(pstrdup(name)));
  return LookupFuncName(qualified, argument_count, arguments, false);
}

static text *make_text(std::string_view value) {
  return cstring_to_text_with_len(value.data(), static_cast<int>(value.size()));
}

// A copy that is wiped with its memory context.
static text *make_wiped_text(std::string_view value) {
  text *result = make_text(value);
  wipe_on_reset(VARDATA(result), value.size());
  return result;
}

// The tag of an OpenPGP packet (RFC 4880, section 4.2), and where the next one begins. False if it cannot be told.
static bool next_packet(std::string_view *packets, int *tag) {
  if (packets->size() < 2) return false;
  auto byte = [&](size_t i) { return i < packets->size() ? static_cast<uint8_t>((*packets)[i]) : 0U; };
  bool fresh = (byte(0) & 0x40) != 0;
  int octets = 1 << (byte(0) & 3);  // of the length, in the old format
  size_t header, body;
  *tag = static_cast<int>(fresh ? byte(0) & 0x3f : (byte(0) >> 2) & 0x0f);
  if (fresh && byte(1) < 192)
    header = 2, body = byte(1);
  else if (fresh && byte(1) < 224)
    header = 3, body = ((byte(1) - 192) << 8) + byte(2) + 192;
  else if (!fresh && octets < 4)
    header = 1 + octets, body = octets == 1 ? byte(1) : byte(1) << 8 | byte(2);
  else
    return *tag != kSessionKeyPacket;  // of a length that only the message itself has
  packets->remove_prefix(std::min(packets->size(), header + body));
  return true;
}

// Whether a message is protected against changes: after the session keys comes a packet with an integrity check.
static bool is_protected(std::string_view packets) {
  int tag = 0;
  do {
    if (!next_packet(&packets, &tag)) return false;
  } while (tag == kSessionKeyPacket);
  return tag == kProtectedPacket;
}

static bytea *decrypt(std::string_view message, std::string_view secret_key) {
  const Oid armored[] = {TEXTOID};
  const Oid decrypted[] = {BYTEAOID, BYTEAOID};
  Oid dearmor = pgcrypto_function("dearmor", 1, armored);
  Oid pub_decrypt = pgcrypto_function("pgp_pub_decrypt_bytea", 2, decrypted);
  Datum key = OidFunctionCall1(dearmor, PointerGetDatum(make_wiped_text(secret_key)));
  wipe_on_reset(VARDATA_ANY(DatumGetPointer(key)), VARSIZE_ANY_EXHDR(DatumGetPointer(key)));
  Datum packets = OidFunctionCall1(dearmor, PointerGetDatum(make_text(message)));
  // pgcrypto opens messages without it, too.
  if (!is_protected(text_view(DatumGetByteaPP(packets)))) elog(ERROR, "no integrity check");
  Datum opened = OidFunctionCall2(pub_decrypt, packets, key);
  wipe_on_reset(VARDATA_ANY(DatumGetPointer(opened)), VARSIZE_ANY_EXHDR(DatumGetPointer(opened)));
  return DatumGetByteaPP(opened);
}

// The plaintext without a line end, which `echo secret | gpg --encrypt` leaves there.
static text *plaintext_of(bytea *opened) {
  std::string_view secret = text_view(opened);
  while (secret.ends_with('\n') || secret.ends_with('\r')) secret.remove_suffix(1);
  return make_wiped_text(secret);
}

static bool is_interruption(int sqlstate) {
  return sqlstate == ERRCODE_QUERY_CANCELED || sqlstate == ERRCODE_ADMIN_SHUTDOWN || sqlstate == ERRCODE_OUT_OF_MEMORY;
}

text *open_pgp_message(std::string_view message) {
  if (message.size() > kMaxMessage)
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("key_value must not be an OpenPGP message of more than %zu bytes", kMaxMessage));
  std::string_view file = read_key_file();
  std::string_view secret_key = find_block(file, kSecretHeader, kSecretFooter);
  if (secret_key.empty()) {
    wipe_key_file();
    report_key_file("the OpenPGP key file holds no armored secret key");
  }
  bytea *volatile opened = nullptr;
  MemoryContext context = CurrentMemoryContext;
  PG_TRY();
  { opened = decrypt(message, secret_key); }
  PG_CATCH();
  {
    // What pgcrypto says differs by version and tells nobody what to do. The transaction ends with ours all the same.
    wipe_key_file();
    if (is_interruption(geterrcode())) PG_RE_THROW();
    MemoryContextSwitchTo(context);
    FlushErrorState();
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("key_value is an OpenPGP message that this server cannot open"),
            errhint("Encrypt it to the key that keypool_public_key() returns."));
  }
  PG_END_TRY();
  wipe_key_file();
  return plaintext_of(opened);
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_public_key);
Datum keypool_public_key(PG_FUNCTION_ARGS) {
  (void)fcinfo;
  text *result = nullptr;
  std::string_view block = find_block(read_key_file(), kPublicHeader, kPublicFooter);
  if (!block.empty()) result = make_text(block);
  wipe_key_file();
  if (result == nullptr) report_key_file("the OpenPGP key file holds no armored public key");
  PG_RETURN_TEXT_P(result);
}

}  // extern "C"
