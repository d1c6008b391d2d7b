// settings_json.h - settings that are given as a JSON object, and the statement that stores them.
//
// Names are those of columns. A name that is not given leaves its column as it is, null resets it to its default. What
// is wrong raises 22023, naming the setting; values are never repeated.
#pragma once

#include "pg/server/postgres_api.h"

#include "pg/catalog/owner_query.h"

enum class SettingKind : uint8 { kNumber, kText, kTexts, kBoolean, kObject, kList, kTime, kRefused };

// A column that can be set.
struct SettingColumn {
  const char *name;
  SettingKind kind;
  int64 low;  // kNumber: from here
  int64 high;
  const char *words;  // kText: the values that it may have, as "a, b", or null; kRefused: the hint
};

inline constexpr int kMaxSettings = 28;

// What is given of them.
struct Settings {
  const SettingColumn *columns;
  int count;
  bool given[kMaxSettings];
  bool reset[kMaxSettings];  // given, as null
  Datum values[kMaxSettings];

  bool any() const;
  int index_of(const char *name) const;  // of a column that there is
  // Null if it is not given, or reset.
  struct varlena *value_of(const char *name) const;
};

// Reads a jsonb object; null: nothing is given. `argument` is what messages call it.
Settings read_settings(const char *argument, struct varlena *object, const SettingColumn *columns, int count);

// Sets all that are not given to their defaults.
void complete_settings(Settings *settings);

// Leaves those given that a row of their table has otherwise; returns their names as an array of text.
Datum keep_changes(Settings *settings, HeapTuple row, TupleDesc columns, Relation table);

// Lists what is given for a statement: `names` as "a, b", `values` as "$3, DEFAULT", with their arguments.
void list_settings(const Settings &settings, QueryArguments *arguments, StringInfo names, StringInfo values);
