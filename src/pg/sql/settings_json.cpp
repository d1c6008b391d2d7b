// settings_json.cpp - settings that are given as a JSON object, and the statement that stores them.
#include "pg/sql/settings_json.h"

extern "C" {
#include "rewrite/rewriteHandler.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
}

#include <cerrno>
#include <cstring>
#include <string_view>

[[noreturn]] static void refuse(const char *name, const char *what) {
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s must be %s", name, what));
  pg_unreachable();
}

bool Settings::any() const {
  for (int i = 0; i < count; ++i)
    if (given[i]) return true;
  return false;
}

int Settings::index_of(const char *name) const {
  for (int i = 0; i < count; ++i)
    if (strcmp(columns[i].name, name) == 0) return i;
  elog(ERROR, "keypool: there is no setting of this name");
  pg_unreachable();
}

struct varlena *Settings::value_of(const char *name) const {
  int i = index_of(name);
  return given[i] && !reset[i] ? reinterpret_cast<struct varlena *>(DatumGetPointer(values[i])) : nullptr;
}

[[noreturn]] static void refuse_range(const SettingColumn &column) {
  if (column.low == 0 && column.high == PG_INT64_MAX)
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("%s must not be negative, or larger than %lld", column.name, static_cast<long long>(column.high)));
  refuse(column.name,
         psprintf("between %lld and %lld", static_cast<long long>(column.low), static_cast<long long>(column.high)));
}

static Datum read_number(const SettingColumn &column, const JsonbValue &value) {
  if (value.type != jbvNumeric) refuse(column.name, "a number");
  Datum number = NumericGetDatum(value.val.numeric);
  Datum whole = DirectFunctionCall2(numeric_trunc, number, Int32GetDatum(0));
  if (!DatumGetBool(DirectFunctionCall2(numeric_eq, number, whole))) refuse(column.name, "a whole number");
  errno = 0;
  int64 result = strtoll(DatumGetCString(DirectFunctionCall1(numeric_out, whole)), nullptr, 10);
  if (errno == ERANGE || result < column.low || result > column.high) refuse_range(column);
  return Int64GetDatum(result);
}

// Whether a word is one of those of a list such as "a, b".
static bool is_listed(std::string_view word, std::string_view list) {
  static constexpr std::string_view kSeparator = ", ";
  for (;;) {
    size_t size = Min(list.find(kSeparator), list.size());
    if (list.substr(0, size) == word) return true;
    if (size == list.size()) return false;
    list.remove_prefix(size + kSeparator.size());
  }
}

static text *text_of(const SettingColumn &column, const JsonbValue &value) {
  if (value.type != jbvString) refuse(column.name, "a string");
  return cstring_to_text_with_len(value.val.string.val, value.val.string.len);
}

static Datum read_text(const SettingColumn &column, const JsonbValue &value) {
  text *given = text_of(column, value);
  std::string_view word(value.val.string.val, static_cast<size_t>(value.val.string.len));
  if (column.words != nullptr && !is_listed(word, column.words))
    refuse(column.name, psprintf("one of %s", column.words));
  return PointerGetDatum(given);
}

static JsonbContainer *container_of(const JsonbValue &value) {
  return value.type == jbvBinary ? value.val.binary.data : nullptr;
}

static Datum read_texts(const SettingColumn &column, const JsonbValue &value) {
  JsonbContainer *array = container_of(value);
  if (array == nullptr || !JsonContainerIsArray(array)) refuse(column.name, "an array of strings");
  auto *texts = static_cast<Datum *>(palloc((JsonContainerSize(array) + 1) * sizeof(Datum)));
  int count = 0;
  JsonbIterator *iterator = JsonbIteratorInit(array);
  JsonbValue element;
  JsonbIteratorToken token;
  while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE) {
    if (token != WJB_ELEM) continue;
    if (element.type != jbvString) refuse(column.name, "an array of strings");
    texts[count++] = PointerGetDatum(text_of(column, element));
  }
  return PointerGetDatum(construct_array(texts, count, TEXTOID, -1, false, TYPALIGN_INT));
}

// Of anything; what it holds is the caller's to read.
static Datum read_list(const SettingColumn &column, JsonbValue *value) {
  JsonbContainer *list = container_of(*value);
  if (list == nullptr || !JsonContainerIsArray(list) || JsonContainerIsScalar(list)) refuse(column.name, "an array");
  return JsonbPGetDatum(JsonbValueToJsonb(value));
}

static Datum read_object(const SettingColumn &column, JsonbValue *value) {
  JsonbContainer *object = container_of(*value);
  if (object == nullptr || !JsonContainerIsObject(object)) refuse(column.name, "an object");
  return JsonbPGetDatum(JsonbValueToJsonb(value));
}

// The type's own input function would quote what it cannot read.
static Datum read_time(const SettingColumn &column, const JsonbValue &value) {
  static const char *const kWhat = "a time, such as \"2026-12-31T23:59:59Z\"";
  if (value.type != jbvString) refuse(column.name, kWhat);
  char work[MAXDATELEN + MAXDATEFIELDS];
  char *fields[MAXDATEFIELDS];
  int types[MAXDATEFIELDS];
  int count, kind, zone;
  struct pg_tm tm;
  fsec_t fraction;
  TimestampTz time;
  char *given = pnstrdup(value.val.string.val, value.val.string.len);
  if (ParseDateTime(given, work, sizeof(work), fields, types, MAXDATEFIELDS, &count) != 0 ||
      decode_date_time(fields, types, count, &kind, &tm, &fraction, &zone) != 0 || kind != DTK_DATE ||
      tm2timestamp(&tm, fraction, &zone, &time) != 0)
    refuse(column.name, kWhat);
  return TimestampTzGetDatum(time);
}

static Datum read_value(const SettingColumn &column, JsonbValue *value) {
  switch (column.kind) {
    case SettingKind::kNumber:
      return read_number(column, *value);
    case SettingKind::kText:
      return read_text(column, *value);
    case SettingKind::kTexts:
      return read_texts(column, *value);
    case SettingKind::kObject:
      return read_object(column, value);
    case SettingKind::kList:
      return read_list(column, value);
    case SettingKind::kTime:
      return read_time(column, *value);
    case SettingKind::kBoolean:
    case SettingKind::kRefused:
      break;
  }
  if (value->type != jbvBool) refuse(column.name, "true or false");
  return BoolGetDatum(value->val.boolean);
}

static char *names_of(const Settings &settings) {
  StringInfoData names;
  initStringInfo(&names);
  for (int i = 0; i < settings.count; ++i)
    if (settings.columns[i].kind != SettingKind::kRefused)
      appendStringInfo(&names, "%s%s", names.len == 0 ? "" : ", ", settings.columns[i].name);
  return names.data;
}

// Names the setting if it looks like a name that was mistyped. What does not might be a secret that went astray.
[[noreturn]] static void refuse_unknown(const char *argument, std::string_view name, const Settings &settings) {
  static constexpr size_t kMaxShown = 40;
  bool shown = !name.empty() && name.size() <= kMaxShown;
  for (char c : name) shown = shown && ((c >= 'a' && c <= 'z') || c == '_');
  int size = static_cast<int>(name.size());
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
          shown ? errmsg("%s has no setting \"%.*s\"", argument, size, name.data())
                : errmsg("%s contains a name that is no setting", argument),
          errhint("The settings are: %s.", names_of(settings)));
  pg_unreachable();
}

static int find_column(const char *argument, const JsonbValue &key, const Settings &settings) {
  std::string_view name(key.val.string.val, static_cast<size_t>(key.val.string.len));
  for (int i = 0; i < settings.count; ++i) {
    const SettingColumn &column = settings.columns[i];
    if (name != column.name) continue;
    if (column.kind == SettingKind::kRefused)
      ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s must not contain %s", argument, column.name),
              errhint("%s", column.words));
    return i;
  }
  refuse_unknown(argument, name, settings);
}

Settings read_settings(const char *argument, struct varlena *object, const SettingColumn *columns, int count) {
  Assert(count <= kMaxSettings);
  Settings settings = {};
  settings.columns = columns;
  settings.count = count;
  if (object == nullptr) return settings;
  Jsonb *root = DatumGetJsonbP(PointerGetDatum(object));
  if (!JB_ROOT_IS_OBJECT(root)) refuse(argument, "a JSON object");
  JsonbIterator *iterator = JsonbIteratorInit(&root->root);
  JsonbValue value;
  JsonbIteratorToken token;
  int current = 0;
  while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE) {
    if (token == WJB_KEY) current = find_column(argument, value, settings);
    if (token != WJB_VALUE) continue;
    settings.given[current] = true;
    settings.reset[current] = value.type == jbvNull;
    if (!settings.reset[current]) settings.values[current] = read_value(columns[current], &value);
  }
  return settings;
}

static Oid type_of(SettingKind kind) {
  switch (kind) {
    case SettingKind::kNumber:
      return INT8OID;  // an assignment makes it as small as the column
    case SettingKind::kText:
      return TEXTOID;
    case SettingKind::kTexts:
      return TEXTARRAYOID;
    case SettingKind::kObject:
    case SettingKind::kList:
      return JSONBOID;
    case SettingKind::kTime:
      return TIMESTAMPTZOID;
    case SettingKind::kBoolean:
    case SettingKind::kRefused:
      break;
  }
  return BOOLOID;
}

void complete_settings(Settings *settings) {
  for (int i = 0; i < settings->count; ++i) {
    if (settings->given[i] || settings->columns[i].kind == SettingKind::kRefused) continue;
    settings->given[i] = settings->reset[i] = true;
  }
}

// The default of a column, which is a constant or none.
static Datum default_of(Relation table, AttrNumber column, bool *is_null) {
  Node *value = build_column_default(table, column);
  *is_null = value == nullptr || !IsA(value, Const) || castNode(Const, value)->constisnull;
  return *is_null ? Datum{0} : castNode(Const, value)->constvalue;
}

// A value of a number's column as it is given.
static Datum widened(Datum value, Oid type) {
  return type == INT2OID   ? Int64GetDatum(DatumGetInt16(value))
         : type == INT4OID ? Int64GetDatum(DatumGetInt32(value))
                           : value;
}

static bool is_as_given(const Settings &settings, int i, HeapTuple row, TupleDesc columns, Relation table) {
  int number = SPI_fnumber(columns, settings.columns[i].name);
  Form_pg_attribute column = TupleDescAttr(columns, number - 1);
  bool is_null, given_null = false;
  Datum value = heap_getattr(row, number, columns, &is_null);
  Datum given = settings.values[i];
  if (settings.reset[i])
    given = default_of(table, get_attnum(RelationGetRelid(table), settings.columns[i].name), &given_null);
  if (is_null || given_null) return is_null && given_null;
  if (settings.columns[i].kind != SettingKind::kNumber)
    return datum_image_eq(value, given, column->attbyval, column->attlen);
  return widened(value, column->atttypid) == (settings.reset[i] ? widened(given, column->atttypid) : given);
}

Datum keep_changes(Settings *settings, HeapTuple row, TupleDesc columns, Relation table) {
  Datum names[kMaxSettings];
  int changes = 0;
  for (int i = 0; i < settings->count; ++i) {
    if (!settings->given[i]) continue;
    settings->given[i] = !is_as_given(*settings, i, row, columns, table);
    if (settings->given[i]) names[changes++] = CStringGetTextDatum(settings->columns[i].name);
  }
  return PointerGetDatum(construct_array(names, changes, TEXTOID, -1, false, TYPALIGN_INT));
}

void list_settings(const Settings &settings, QueryArguments *arguments, StringInfo names, StringInfo values) {
  for (int i = 0; i < settings.count; ++i) {
    if (!settings.given[i]) continue;
    const char *separator = names->len == 0 ? "" : ", ";
    appendStringInfo(names, "%s%s", separator, settings.columns[i].name);
    if (settings.reset[i]) {
      appendStringInfo(values, "%sDEFAULT", separator);
      continue;
    }
    arguments->Add(type_of(settings.columns[i].kind), settings.values[i]);
    appendStringInfo(values, "%s$%d", separator, arguments->count);
  }
}
