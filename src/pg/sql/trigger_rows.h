// trigger_rows.h - the rows that keypool's triggers are called for, and what their columns may hold.
#pragma once

#include "pg/server/postgres_api.h"

#include <initializer_list>
#include <string_view>

#include "core/status.h"
#include "pg/pool/provider_rules.h"
#include "pg/server/arguments.h"

// What a trigger function was called for. Raises if that is not what the install script made it for: whoever may
// execute it could put it on a table of their own.
TriggerData *trigger_data(FunctionCallInfo fcinfo, const char *function, std::initializer_list<Oid> tables,
                          TriggerEvent timing);

// Whether rows are written as another server has them, which has checked them.
inline bool is_replicating(void) { return SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA; }

// A row on its way into a table, with the columns that the trigger changes.
template <int kColumns>
struct TriggerRow {
  TupleDesc columns;
  Datum values[kColumns];
  bool nulls[kColumns];
  bool changed[kColumns];

  Datum value(AttrNumber column) const { return values[column - 1]; }
  bool is_null(AttrNumber column) const { return nulls[column - 1]; }
  const char *name(AttrNumber column) const { return NameStr(TupleDescAttr(columns, column - 1)->attname); }
  // Empty for NULL.
  std::string_view text_of(AttrNumber column) const {
    return is_null(column) ? std::string_view() : text_view(DatumGetTextPP(value(column)));
  }
  void Set(AttrNumber column, Datum value) {
    values[column - 1] = value;
    nulls[column - 1] = false;
    changed[column - 1] = true;
  }
  void SetNull(AttrNumber column) {
    nulls[column - 1] = true;
    changed[column - 1] = true;
  }
};

// Takes a row apart, with the function of relations.h for its table.
template <int kColumns>
TriggerRow<kColumns> read_trigger_row(HeapTuple tuple, TupleDesc columns,
                                      void (*read)(HeapTuple, TupleDesc, Datum (&)[kColumns], bool (&)[kColumns])) {
  TriggerRow<kColumns> row;
  memset(&row, 0, sizeof(row));
  row.columns = columns;
  read(tuple, columns, row.values, row.nulls);
  return row;
}

// Whether a column is NULL in both, or has the same bytes.
template <int kColumns>
bool same_value(const TriggerRow<kColumns> &one, const TriggerRow<kColumns> &other, AttrNumber column) {
  Form_pg_attribute attribute = TupleDescAttr(one.columns, column - 1);
  if (one.is_null(column) || other.is_null(column)) return one.is_null(column) && other.is_null(column);
  return datum_image_eq(one.value(column), other.value(column), attribute->attbyval, attribute->attlen);
}

// The tuple with what the trigger has changed.
template <int kColumns>
HeapTuple with_changes(HeapTuple tuple, const TriggerRow<kColumns> &row) {
  int numbers[kColumns];
  Datum values[kColumns];
  bool nulls[kColumns];
  int count = 0;
  for (int i = 0; i < kColumns; ++i) {
    if (!row.changed[i]) continue;
    numbers[count] = i + 1;
    values[count] = row.values[i];
    nulls[count++] = row.nulls[i];
  }
  return heap_modify_tuple_by_cols(tuple, row.columns, count, numbers, values, nulls);
}

// Raises if an UPDATE changes a column that never changes, of a `what`.
template <int kColumns>
void refuse_changed(const TriggerRow<kColumns> &old_row, const TriggerRow<kColumns> &new_row, AttrNumber column,
                    const char *what) {
  if (same_value(old_row, new_row, column)) return;
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
          errmsg("%s of a %s cannot be changed", new_row.name(column), what),
          errhint("Add a new %s, and delete this one.", what));
}

// An UPDATE that says nothing of updated_at sets it.
template <int kColumns>
void set_updated_at(const TriggerRow<kColumns> &old_row, TriggerRow<kColumns> *row, AttrNumber column) {
  if (same_value(old_row, *row, column)) row->Set(column, TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
}

// Raises if a column is NULL that is read as if it could not be: somebody may have dropped its NOT NULL.
template <int kColumns>
void require_values(const TriggerRow<kColumns> &row, std::initializer_list<AttrNumber> columns) {
  for (AttrNumber column : columns)
    if (row.is_null(column))
      ereport(ERROR, errcode(ERRCODE_NOT_NULL_VIOLATION), errmsg("%s must not be null", row.name(column)));
}

// The tuple that a row-level trigger before a change lets in.
inline HeapTuple new_tuple(const TriggerData *trigger) {
  return TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
}

// Checks of columns. `row` says in the DETAIL which row is meant, or is null. All raise 22023.
void refuse_column(const keypool::Status &status, const char *row);
void check_provider_column(std::string_view provider);
void check_account_column(std::string_view account, const char *row);
void check_models_column(Datum models, const char *column, const char *row);
void check_time_zone_column(Datum time_zone);

// The call_timeout of a provider, as this transaction sees it.
uint32 call_timeout_of(std::string_view provider);
