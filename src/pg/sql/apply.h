// apply.h - the parts of keypool_apply.
#pragma once

#include "pg/server/postgres_api.h"

#include "pg/sql/document.h"

// What is being applied, and where the changes are told.
struct Applying {
  ReturnSetInfo *result;
  DocumentPath path;
  bool prune;
  Datum provider;  // text; 0: none
};

// Tells one change. `name` and `columns` (an array of text) may be 0.
void put_change(const Applying &applying, const char *object, Datum name, const char *change, Datum columns);

inline bool is_empty_array(Datum array) { return ARR_NDIM(DatumGetArrayTypeP(array)) == 0; }

// Rows that a statement returns for the provider. Between SPI_connect and SPI_finish.
struct Rows {
  uint64 count;
  HeapTuple *rows;
  TupleDesc columns;

  Datum get(uint64 i, const char *column, bool *is_null) const {
    return SPI_getbinval(rows[i], columns, SPI_fnumber(columns, column), is_null);
  }
};
Rows read_rows(const Applying &applying, const char *sql);

// Makes the keys of the provider, or the error rules, what a list of the document says.
void apply_keys(Applying *applying, struct varlena *list);
void apply_error_rules(Applying *applying, struct varlena *list);
