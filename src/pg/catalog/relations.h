// relations.h - where keypool's tables are, and whether anything about them has changed.
#pragma once

#include "pg/server/postgres_api.h"

// Columns of keypool.provider_keys, in order.
enum ProviderKeysColumn : AttrNumber {
  kKeysId = 1,
  kKeysProvider,
  kKeysLabel,
  kKeysValue,
  kKeysPriority,
  kKeysMaxRpm,
  kKeysMaxTpm,
  kKeysIsActive,
  kKeysInactiveUntil,
  kKeysCreatedAt,
  kKeysUpdatedAt,
  kKeysFingerprint,  // this and those after it: not before the extension is updated to 0.2.0; NULL then
  kKeysUnopenedSince,
  kKeysColumns = kKeysUnopenedSince,
};

// Columns of keypool.key_state.
enum KeyStateColumn : AttrNumber { kStateKeyId = 1, kStateState };

// Columns of keypool.wakeups.
enum WakeupsColumn : AttrNumber { kWakeupSlot = 1, kWakeupRing };

// Columns of keypool.master_keys.
enum MasterKeysColumn : AttrNumber { kMasterKeysId = 1, kMasterKeysFingerprint };

// Columns of keypool.grants, in order.
enum GrantsColumn : AttrNumber { kGrantsRole = 1, kGrantsRights, kGrantsProvider, kGrantsColumns = kGrantsProvider };

// Takes a row of keypool.provider_keys or keypool.grants apart. Raises 42809 if the table has other columns than
// keypool gave it. Columns that come with the update to 0.2.0 are null before.
void read_provider_keys_row(HeapTuple row, TupleDesc columns, Datum (&values)[kKeysColumns],
                            bool (&nulls)[kKeysColumns]);
void read_grants_row(HeapTuple row, TupleDesc columns, Datum (&values)[kGrantsColumns], bool (&nulls)[kGrantsColumns]);

// Raises likewise for keypool.key_state.
void check_key_state_columns(TupleDesc columns);

// Raises 42809 if a table's pages are not a heap's, as which keypool reads them.
void check_is_heap(Relation relation);

struct KeypoolRelations {
  Oid provider_keys;
  Oid provider_keys_by_id;           // its primary key
  Oid provider_keys_by_order;        // its index on (provider_id, priority, id)
  Oid provider_keys_by_fingerprint;  // its index on (provider_id, fingerprint); invalid before the update to 0.2.0
  Oid key_state;
  Oid key_state_by_key;  // its primary key
  Oid wakeups;           // invalid before the extension is updated to 0.2.0
  Oid grants;
  Oid master_keys;        // invalid before the extension is updated to 0.2.0
  Oid master_keys_by_id;  // its primary key; likewise
};

void relations_init(void);

// Looks them up where they are not known. Raises 3F000 or 42P01 if the extension is not there.
const KeypoolRelations &relations(void);

// Whether a relation is the index of keypool.provider_keys on their order, or may be: for a callback of invalidations.
bool relations_may_be_keys_order(Oid relation);

// The role that owns them.
Oid relations_owner(void);

// A number that changes whenever all that is known of the rows of keypool.provider_keys, keypool.key_state and
// keypool.wakeups may be wrong, addresses included: a table was rewritten, truncated or altered, or states were
// restored. A key that is added, changed or removed is told of by its provider (provider_changes.h). Takes in what
// other sessions have committed up to now.
uint64 relations_version(void);

// A number that changes whenever a grant was added, changed or removed in a transaction that committed, or in this
// transaction, and when relations_version does or the table keypool.master_keys is altered. Takes in likewise.
uint64 grants_version(void);
