// provider_changes.cpp - telling every session that the keys of one provider have changed.
#include "pg/provider_changes.h"

extern "C" {
#include "catalog/pg_sequence.h"
#include "common/hashfn.h"
#include "utils/syscache.h"
}

#include "pg/relations.h"
#include "pg/settings.h"

static ProviderChanges coming;  // also changed in the middle of a scan
static ProviderChanges taken;

static void on_sequence_change(Datum, int, uint32 hash) {
  if (provider_change_came(hash)) return;
  if (hash == 0 || coming.count == lengthof(coming.hashes))
    coming.all = true;
  else
    coming.hashes[coming.count++] = hash;
}

void provider_changes_init(void) { CacheRegisterSyscacheCallback(SEQRELID, on_sequence_change, Datum{0}); }

static Datum object_number(std::string_view provider) {
  return ObjectIdGetDatum(hash_bytes(reinterpret_cast<const unsigned char *>(provider.data()), provider.size()));
}

void tell_provider_change(std::string_view provider) {
  if (!server_is_tested()) {
    CacheInvalidateRelcacheByRelid(relations().provider_keys);
    (void)GetCurrentCommandId(true);
    return;
  }
  Relation sequences = table_open(SequenceRelationId, AccessShareLock);
  Datum values[Natts_pg_sequence] = {};
  bool nulls[Natts_pg_sequence] = {};
  values[Anum_pg_sequence_seqrelid - 1] = object_number(provider);
  HeapTuple object = heap_form_tuple(RelationGetDescr(sequences), values, nulls);
  CacheInvalidateHeapTuple(sequences, object, nullptr);
  // The end of a command takes invalidations in only if the command changed something, as it would have to here.
  (void)GetCurrentCommandId(true);
  heap_freetuple(object);
  table_close(sequences, AccessShareLock);
}

uint32 provider_change_hash(std::string_view provider) {
  return GetSysCacheHashValue1(SEQRELID, object_number(provider));
}

bool provider_change_came(uint32 hash) {
  if (coming.all) return true;
  for (int i = 0; i < coming.count; ++i)
    if (coming.hashes[i] == hash) return true;
  return false;
}

const ProviderChanges &take_provider_changes(void) {
  taken.all = coming.all;
  taken.count = coming.count;
  memcpy(taken.hashes, coming.hashes, coming.count * sizeof(uint32));
  coming.all = false;
  coming.count = 0;
  return taken;
}
