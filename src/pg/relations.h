// relations.h - where keypool's tables are, and whether anything about them has changed.
#pragma once

#include "pg/postgres_api.h"

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
  kKeysColumns = kKeysUpdatedAt,
};

// Columns of keypool.key_state.
enum KeyStateColumn : AttrNumber { kStateKeyId = 1, kStateState };

// Columns of keypool.grants, in order.
enum GrantsColumn : AttrNumber { kGrantsRole = 1, kGrantsRights, kGrantsProvider, kGrantsColumns = kGrantsProvider };

// Takes a row of keypool.provider_keys or keypool.grants apart. Raises 42809 if the table has other columns than
// keypool gave it.
void read_provider_keys_row(HeapTuple row, TupleDesc columns, Datum (&values)[kKeysColumns],
                            bool (&nulls)[kKeysColumns]);
void read_grants_row(HeapTuple row, TupleDesc columns, Datum (&values)[kGrantsColumns], bool (&nulls)[kGrantsColumns]);

struct KeypoolRelations {
  Oid provider_keys;
  Oid provider_keys_by_id;     // its primary key
  Oid provider_keys_by_order;  // its index on (provider_id, priority, id)
  Oid key_state;
  Oid key_state_by_key;  // its primary key
  Oid grants;
};

void relations_init(void);

// Looks them up where they are not known. Raises 3F000 or 42P01 if the extension is not there.
const KeypoolRelations &relations(void);

// The role that owns them.
Oid relations_owner(void);

// A number that changes whenever something about one of these relations may have changed: a key or a grant was added,
// changed or removed in a transaction that committed, or in this transaction (the tables' triggers invalidate the
// relation); or a table was rewritten. Takes in what other sessions have committed up to now.
uint64 relations_version(void);
