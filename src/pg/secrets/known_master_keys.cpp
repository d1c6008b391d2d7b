// known_master_keys.cpp - keypool.master_keys: which master key this database knows by each id.
#include "pg/secrets/known_master_keys.h"

#include <openssl/crypto.h>

#include <initializer_list>

#include "core/secret/envelope.h"
#include "pg/catalog/owner_query.h"
#include "pg/catalog/relations.h"
#include "pg/server/arguments.h"
#include "pg/server/core_call.h"
#include "pg/server/key_ids.h"
#include "pg/server/report.h"
#include "pg/server/utf8.h"

using keypool::Code;
using keypool::Failure;
using keypool::MasterKey;
using keypool::Status;

static const char *const kEnter =
    "INSERT INTO keypool.master_keys (id, fingerprint) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";

// Keys of the keyring, by their place in it, that were seen in the table in this subtransaction, so that many secrets
// in one statement take one look. What is entered in it goes with what it seals if it is rolled back.
static struct {
  LocalTransactionId transaction;
  SubTransactionId subtransaction;
  uint64 places;
} entered;
static_assert(keypool::kMaxMasterKeys <= 64);

static bool is_entered(uint64 place) {
  if (entered.transaction != local_transaction_id() || entered.subtransaction != GetCurrentSubTransactionId())
    entered = {local_transaction_id(), GetCurrentSubTransactionId(), 0};
  return (entered.places & place) != 0;
}

static Status wrong(const MasterKey &key) {
  return Failure(Code::kWrongMasterKey,
                 "master key \"%s\" of the keyring is not the one that this database knows by that id", key.id);
}

static std::string_view column(HeapTuple row, Relation table, AttrNumber number) {
  bool is_null;
  Datum value = heap_getattr(row, number, RelationGetDescr(table), &is_null);
  return is_null ? std::string_view() : text_view(DatumGetTextPP(value));
}

Status known_master_keys_compare(const keypool::Keyring &keyring) {
  entered.places = 0;  // the keyring may be another
  char fingerprint[keypool::kFingerprintText + 1];
  Status status;
  Relation table = table_open(relations().master_keys, AccessShareLock);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  SysScanDesc scan = systable_beginscan(table, InvalidOid, false, snapshot, 0, nullptr);
  while (HeapTuple row = systable_getnext(scan)) {
    const MasterKey *key = keypool::FindMasterKey(keyring, column(row, table, kMasterKeysId));
    if (key == nullptr) continue;
    keypool::Fingerprint(*key, fingerprint);
    if (column(row, table, kMasterKeysFingerprint) != fingerprint) status = wrong(*key);
  }
  systable_endscan(scan);
  UnregisterSnapshot(snapshot);
  table_close(table, AccessShareLock);
  return status;
}

enum class Known { kNo, kSame, kOther };

// What the table says of an id, with what other transactions are about to commit: to wait for these would let a long
// keypool_heal() hold up everybody who seals.
static Known look_up(std::string_view id, std::string_view fingerprint) {
  Relation table = table_open(relations().master_keys, AccessShareLock);
  SnapshotData dirty;
  InitDirtySnapshot(dirty);
  ScanKeyData condition;
  text *wanted = cstring_to_text_with_len(id.data(), static_cast<int>(id.size()));
  ScanKeyInit(&condition, kMasterKeysId, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(wanted));
  SysScanDesc scan = systable_beginscan(table, relations().master_keys_by_id, true, &dirty, 1, &condition);
  HeapTuple row = systable_getnext(scan);
  Known known = Known::kNo;
  if (HeapTupleIsValid(row))
    known = column(row, table, kMasterKeysFingerprint) == fingerprint ? Known::kSame : Known::kOther;
  systable_endscan(scan);
  table_close(table, AccessShareLock);
  return known;
}

bool known_master_keys_has(HeapTuple row, Relation table) {
  std::string_view id = column(row, table, kMasterKeysId);
  Known known = look_up(id, column(row, table, kMasterKeysFingerprint));
  if (known == Known::kOther)
    ereport(WARNING, errmsg("keypool: master key \"%.*s\" is known here with another fingerprint, which stays",
                            static_cast<int>(id.size()), id.data()));
  return known != Known::kNo;
}

static bool opens(keypool::Keyring *keyring, HeapTuple row, Relation table, char *out) {
  std::string_view value = column(row, table, kKeysValue);
  keypool::StoredSecret stored;
  keypool::ParseStored(value, static_cast<uint8_t *>(palloc(value.size() + 1)), &stored);
  bool is_null;
  Datum id = heap_getattr(row, kKeysId, RelationGetDescr(table), &is_null);
  std::string_view provider = column(row, table, kKeysProvider);
  for (std::string_view bound : {utf8_of_provider(provider), provider}) {  // now, and by versions before 0.2.0
    size_t size = 0;
    keypool::SecretOwner owner = {key_id_from_datum(id), bound};
    Status status = call_core([&] { return keypool::Open(keyring, stored, owner, out, &size); });
    OPENSSL_cleanse(out, size);
    if (status.ok()) return true;
  }
  return false;
}

static bool is_sealed_under(HeapTuple row, Relation table, std::string_view id) {
  bool is_null;
  Datum value = heap_getattr(row, kKeysValue, RelationGetDescr(table), &is_null);
  return !is_null && keypool::SealedUnder(text_view(DatumGetTextPSlice(value, 0, keypool::kSealedPrefixMax))) == id;
}

// Whether secrets are sealed under the id of a key and none of them opens with it.
static bool opens_nothing(keypool::Keyring *keyring, const MasterKey &key) {
  Relation table = table_open(relations().provider_keys, AccessShareLock);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "keypool sealed row", ALLOCSET_DEFAULT_SIZES);
  auto *out = static_cast<char *>(palloc(keypool::kMaxSecretBytes));
  bool sealed = false, opened = false;
  SysScanDesc scan = systable_beginscan(table, InvalidOid, false, snapshot, 0, nullptr);
  while (HeapTuple row = opened ? nullptr : systable_getnext(scan)) {
    CHECK_FOR_INTERRUPTS();
    MemoryContext before = MemoryContextSwitchTo(context);
    bool under = is_sealed_under(row, table, key.id);
    sealed = sealed || under;
    opened = under && opens(keyring, row, table, out);
    MemoryContextSwitchTo(before);
    MemoryContextReset(context);
  }
  systable_endscan(scan);
  MemoryContextDelete(context);
  pfree(out);
  UnregisterSnapshot(snapshot);
  table_close(table, AccessShareLock);
  return sealed && !opened;
}

static void enter(keypool::Keyring *keyring, const MasterKey &key, bool proven) {
  uint64 place = UINT64CONST(1) << (&key - keyring->keys);
  if (is_entered(place)) return;
  char fingerprint[keypool::kFingerprintText + 1];
  keypool::Fingerprint(key, fingerprint);
  Known known = look_up(key.id, fingerprint);
  if (known == Known::kNo && (proven || !opens_nothing(keyring, key))) {
    QueryArguments arguments;
    arguments.Add(TEXTOID, CStringGetTextDatum(key.id));
    arguments.Add(TEXTOID, CStringGetTextDatum(fingerprint));
    owner_execute(kEnter, arguments);
    known = look_up(key.id, fingerprint);  // another session may have been faster
  }
  if (known != Known::kSame) report_status(wrong(key));
  entered.places |= place;
}

void known_master_keys_enter(keypool::Keyring *keyring, const MasterKey &key) { enter(keyring, key, false); }

void known_master_keys_enter_proven(keypool::Keyring *keyring, const MasterKey &key) { enter(keyring, key, true); }
