// provider_changes.cpp - telling every session that one provider has changed: its keys, its quotas or its defaults.
#include "pg/catalog/provider_changes.h"

extern "C" {
#include "catalog/pg_class.h"
#include "catalog/pg_sequence.h"
#include "common/hashfn.h"
#include "utils/syscache.h"
}

#include "pg/catalog/relations.h"
#include "pg/server/settings.h"

// An announcement. A number of a subtransaction that was rolled back never returns in its transaction.
struct Told {
  uint32 hash;
  uint32 is_meters;
  SubTransactionId subtransaction;
};

// A change is in `own`, then in `coming`, then in `taken`, and is never lost on the way: a rollback lets one's own come
// as well, since they may have been seen.
static struct {
  ProviderChanges own;  // of this transaction by `own_command`, which no snapshot shows before the next command
  CommandId own_command;
  ProviderChanges coming;  // to be taken in; also changed in the middle of a scan
  ProviderChanges taken;   // what was taken in last
  HTAB *told;              // what was announced in this transaction, in its memory
} session;

static bool names(const ProviderChanges &changes, uint32 hash) {
  if (changes.all) return true;
  for (int i = 0; i < changes.count; ++i)
    if (changes.hashes[i] == hash) return true;
  return false;
}

// 0 stands for all.
static void add_change(ProviderChanges *changes, uint32 hash) {
  if (names(*changes, hash)) return;
  if (hash == 0 || changes->count == lengthof(changes->hashes))
    changes->all = true;
  else
    changes->hashes[changes->count++] = hash;
}

static void let_own_come(void) {
  if (session.own.all) add_change(&session.coming, 0);
  for (int i = 0; i < session.own.count; ++i) add_change(&session.coming, session.own.hashes[i]);
  session.own.all = false;
  session.own.count = 0;
}

static void let_own_come_if_seen(void) {
  if ((session.own.all || session.own.count > 0) && session.own_command != GetCurrentCommandId(false)) let_own_come();
}

static void on_transaction_end(void *) {
  session.told = nullptr;
  let_own_come();
}

static void begin_telling(void) {
  auto *callback = static_cast<MemoryContextCallback *>(
      MemoryContextAllocZero(TopTransactionContext, sizeof(MemoryContextCallback)));
  HASHCTL control = {};
  control.keysize = control.entrysize = sizeof(Told);
  control.hcxt = TopTransactionContext;
  session.told = hash_create("keypool announcements", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
  callback->func = on_transaction_end;
  MemoryContextRegisterResetCallback(TopTransactionContext, callback);
}

// Notes a change for this session. True if this subtransaction has yet to announce it to others.
static bool note_own_change(uint32 hash, bool is_meters) {
  let_own_come_if_seen();
  // The end of a command counts, and takes invalidations in, only if the command changed something, as it will have.
  session.own_command = GetCurrentCommandId(true);
  add_change(&session.own, is_meters ? 0 : hash);
  if (session.told == nullptr) begin_telling();
  Told telling = {hash, is_meters, GetCurrentSubTransactionId()};
  bool found;
  hash_search(session.told, &telling, HASH_ENTER, &found);
  return !found;
}

static void on_sequence_change(Datum, int, uint32 hash) { add_change(&session.coming, hash); }

static void on_relation_change(Datum, Oid relation) {
  if (relations_may_be_keys_order(relation)) add_change(&session.coming, 0);
}

void provider_changes_init(void) {
  CacheRegisterSyscacheCallback(SEQRELID, on_sequence_change, Datum{0});
  CacheRegisterRelcacheCallback(on_relation_change, Datum{0});
}

static Datum object_number(std::string_view provider) {
  return ObjectIdGetDatum(hash_bytes(reinterpret_cast<const unsigned char *>(provider.data()), provider.size()));
}

void tell_provider_change(std::string_view provider) {
  if (!note_own_change(provider_change_hash(provider), false)) return;
  if (!server_is_tested()) {
    CacheInvalidateRelcacheByRelid(relations().provider_keys_by_order);
    return;
  }
  Relation sequences = table_open(SequenceRelationId, AccessShareLock);
  Datum values[Natts_pg_sequence] = {};
  bool nulls[Natts_pg_sequence] = {};
  values[Anum_pg_sequence_seqrelid - 1] = object_number(provider);
  HeapTuple object = heap_form_tuple(RelationGetDescr(sequences), values, nulls);
  CacheInvalidateHeapTuple(sequences, object, nullptr);
  heap_freetuple(object);
  table_close(sequences, AccessShareLock);
}

void tell_meters_change(Relation meters) {
  if (note_own_change(0, true)) CacheInvalidateRelcache(meters);
}

void assume_provider_change(uint32 hash) { add_change(&session.coming, hash); }

uint32 provider_change_hash(std::string_view provider) {
  return GetSysCacheHashValue1(SEQRELID, object_number(provider));
}

void lock_provider(Oid table, std::string_view provider) {
  static constexpr uint32 kLocks = 256;
  auto lock = static_cast<uint16>(1 + provider_change_hash(provider) % kLocks);
  LockRelationOid(table, RowExclusiveLock);  // as a change of the table does, which may come later
  LockDatabaseObject(RelationRelationId, table, lock, ExclusiveLock);
}

bool provider_change_came(uint32 hash) {
  let_own_come_if_seen();
  return names(session.coming, hash);
}

const ProviderChanges &take_provider_changes(void) {
  let_own_come_if_seen();
  session.taken.all = session.coming.all;
  session.taken.count = session.coming.count;
  memcpy(session.taken.hashes, session.coming.hashes, session.coming.count * sizeof(uint32));
  session.coming.all = false;
  session.coming.count = 0;
  return session.taken;
}
