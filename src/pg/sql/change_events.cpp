// change_events.cpp - the events of changes of configuration.
#include "pg/sql/change_events.h"

extern "C" {
#include "utils/json.h"
}

// What is told by other events, or says nothing to people.
static bool is_told(const char *column) {
  for (const char *silent : {"id", "provider_id", "created_at", "updated_at", "fingerprint", "unopened_since"})
    if (strcmp(column, silent) == 0) return false;
  return true;
}

// Whose values may be shown: they are numbers.
static bool is_limit(const char *column) {
  return strncmp(column, "max_", 4) == 0 || strcmp(column, "burst_seconds") == 0;
}

static void append_number(StringInfo json, Form_pg_attribute column, Datum value, bool is_null) {
  Oid output;
  bool is_varlena;
  getTypeOutputInfo(column->atttypid, &output, &is_varlena);
  appendStringInfoString(json, is_null ? "null" : OidOutputFunctionCall(output, value));
}

static bool is_same(Form_pg_attribute column, Datum old_value, bool was_null, Datum value, bool is_null) {
  if (was_null || is_null) return was_null && is_null;
  return datum_image_eq(old_value, value, column->attbyval, column->attlen);
}

const char *describe_change(TupleDesc columns, const Datum *old_values, const bool *old_nulls, const Datum *values,
                            const bool *nulls, int count) {
  bool is_new = old_values == nullptr;
  StringInfoData names, limits;
  initStringInfo(&names);
  initStringInfo(&limits);
  for (int i = 0; i < count; ++i) {
    Form_pg_attribute column = TupleDescAttr(columns, i);
    const char *name = NameStr(column->attname);
    bool was_null = is_new || old_nulls[i];
    Datum old_value = is_new ? Datum{0} : old_values[i];
    if (!is_told(name) || is_same(column, old_value, was_null, values[i], nulls[i])) continue;
    appendStringInfoString(&names, names.len == 0 ? "" : ", ");
    escape_json(&names, name);
    if (!is_limit(name)) continue;
    appendStringInfo(&limits, "%s\"%s\": [", is_new && limits.len == 0 ? "" : ", ", name);
    append_number(&limits, column, old_value, was_null);
    appendStringInfoString(&limits, ", ");
    append_number(&limits, column, values[i], nulls[i]);
    appendStringInfoChar(&limits, ']');
  }
  if (is_new) return psprintf("{%s}", limits.data);
  return names.len == 0 ? nullptr : psprintf("{\"columns\": [%s]%s}", names.data, limits.data);
}
