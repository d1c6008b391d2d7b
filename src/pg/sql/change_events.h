// change_events.h - the events of changes of configuration.
#pragma once

#include "pg/server/postgres_api.h"

#include "pg/sql/trigger_rows.h"
#include "pg/state/event_log.h"

// What differs between two rows of a table, as JSON: {"columns": [those that differ], "max_rpm": [old, new]}, with the
// values of limits only. `old_values` null: the row is new, and its limits are all that is told. Null if nothing does.
// updated_at and what keypool keeps for itself do not count.
const char *describe_change(TupleDesc columns, const Datum *old_values, const bool *old_nulls, const Datum *values,
                            const bool *nulls, int count);

template <int kColumns>
const char *describe_change(const TriggerRow<kColumns> &old_row, const TriggerRow<kColumns> &row) {
  return describe_change(row.columns, old_row.values, old_row.nulls, row.values, row.nulls, kColumns);
}

template <int kColumns>
const char *describe_new(const TriggerRow<kColumns> &row) {
  return describe_change(row.columns, nullptr, nullptr, row.values, row.nulls, kColumns);
}
