// apply.cpp - keypool_apply: providers, quotas, keys and error rules as one document.
#include "pg/server/postgres_api.h"

extern "C" {
#include "utils/array.h"
}

#include "pg/catalog/owner_query.h"
#include "pg/catalog/privileges.h"
#include "pg/catalog/relations.h"
#include "pg/secrets/master_keys.h"
#include "pg/secrets/new_secrets.h"
#include "pg/secrets/statement_hiding.h"
#include "pg/server/arguments.h"
#include "pg/server/report.h"
#include "pg/sql/apply.h"
#include "pg/sql/quota_admin.h"
#include "pg/sql/setting_columns.h"

static constexpr SettingColumn kDocument[] = {
    {"providers", SettingKind::kObject, 0, 0, nullptr},
    {"error_rules", SettingKind::kList, 0, 0, nullptr},
};
static constexpr SettingColumn kProvider[] = {
    {"settings", SettingKind::kObject, 0, 0, nullptr},
    {"quotas", SettingKind::kObject, 0, 0, nullptr},
    {"keys", SettingKind::kList, 0, 0, nullptr},
};

static const char *const kReadQuotas = "SELECT * FROM keypool.quotas WHERE provider_id OPERATOR(pg_catalog.=) $1";
static const char *const kReadProvider = "SELECT * FROM keypool.providers WHERE provider_id OPERATOR(pg_catalog.=) $1";

void put_change(const Applying &applying, const char *object, Datum name, const char *change, Datum columns) {
  Datum values[] = {CStringGetTextDatum(object), applying.provider, name, CStringGetTextDatum(change), columns};
  bool nulls[lengthof(values)] = {};
  for (int i : {1, 2, 4}) nulls[i] = values[i] == Datum{0};
  tuplestore_putvalues(applying.result->setResult, applying.result->setDesc, values, nulls);
}

Rows read_rows(const Applying &applying, const char *sql) {
  QueryArguments arguments;
  if (applying.provider != Datum{0}) arguments.Add(TEXTOID, applying.provider);
  uint64 count = owner_execute_connected(sql, arguments);
  return {count, SPI_tuptable->vals, SPI_tuptable->tupdesc};
}

// A row of a provider that has none.
static HeapTuple row_of_nulls(TupleDesc columns) {
  auto *values = static_cast<Datum *>(palloc0(static_cast<Size>(columns->natts) * sizeof(Datum)));
  auto *nulls = static_cast<bool *>(palloc(static_cast<Size>(columns->natts)));
  memset(nulls, true, static_cast<Size>(columns->natts));
  return heap_form_tuple(columns, values, nulls);
}

static void apply_provider_settings(Applying *applying, struct varlena *object) {
  Settings settings = read_settings("settings", object, kProviderSettings, lengthof(kProviderSettings));
  complete_settings(&settings);
  Relation table = table_open(relations().providers, NoLock);
  Rows rows = read_rows(*applying, kReadProvider);
  HeapTuple row = rows.count != 0 ? rows.rows[0] : row_of_nulls(rows.columns);
  Datum changed = keep_changes(&settings, row, rows.columns, table);
  table_close(table, NoLock);
  if (!settings.any()) return;
  set_provider(applying->provider, settings);
  put_change(*applying, "provider", Datum{0}, "changed", changed);
}

// Which of the rows has this name; their count if none has.
static uint64 find_quota(const Rows &rows, std::string_view name) {
  bool is_null;
  uint64 i = 0;
  while (i < rows.count && text_view(DatumGetTextPP(rows.get(i, "name", &is_null))) != name) ++i;
  return i;
}

static void add_quota(const Applying &applying, Datum name, const Settings &settings) {
  write_quota(applying.provider, name, true, settings);
  put_change(applying, "quota", name, "added", Datum{0});
}

static void apply_quota(const Applying &applying, Relation table, const Rows &rows, uint64 at, Datum name,
                        struct varlena *object) {
  Settings settings = read_settings("a quota", object, kQuotaSettings, lengthof(kQuotaSettings));
  if (at == rows.count) return add_quota(applying, name, settings);
  complete_settings(&settings);
  Datum changed = keep_changes(&settings, rows.rows[at], rows.columns, table);
  if (is_empty_array(changed)) return;
  write_quota(applying.provider, name, false, settings);
  put_change(applying, "quota", name, "changed", changed);
}

// Those that the document does not name go first: together with new ones they might be too many.
static void prune_quotas(Applying *applying, const Rows &rows, struct varlena *object) {
  auto *named = static_cast<bool *>(palloc0(rows.count + 1));
  document_each(&applying->path, object,
                [&](std::string_view name, struct varlena *) { named[find_quota(rows, name)] = true; });
  for (uint64 i = 0; i < rows.count; ++i) {
    bool is_null;
    Datum name = rows.get(i, "name", &is_null);
    if (!named[i] && delete_quota(applying->provider, name)) put_change(*applying, "quota", name, "deleted", Datum{0});
  }
}

static void apply_quotas(Applying *applying, struct varlena *object) {
  Relation table = table_open(relations().quotas, NoLock);
  Rows rows = read_rows(*applying, kReadQuotas);
  if (applying->prune) prune_quotas(applying, rows, object);
  document_each(&applying->path, object, [&](std::string_view name, struct varlena *value) {
    apply_quota(*applying, table, rows, find_quota(rows, name), PointerGetDatum(document_text(name)), value);
  });
  table_close(table, NoLock);
}

// One part of a provider or of the document, if it is given.
static void apply_part(Applying *applying, const Settings &parts, const char *name,
                       void (*apply)(Applying *, struct varlena *)) {
  int i = parts.index_of(name);
  if (!parts.given[i]) return;
  size_t above = applying->path.size;
  document_path_push(&applying->path, name);
  if (parts.reset[i])
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s must not be null", name),
            errhint("Leave it out to leave it as it is."));
  apply(applying, parts.value_of(name));
  applying->path.size = above;
}

// Quotas come before keys: a key that is new is then under them from its first call on.
static void apply_provider(Applying *applying, std::string_view name, struct varlena *object) {
  Settings parts = read_settings("a provider", object, kProvider, lengthof(kProvider));
  check_new_provider(name, nullptr);
  applying->provider = PointerGetDatum(document_text(name));
  apply_part(applying, parts, "settings", apply_provider_settings);
  apply_part(applying, parts, "quotas", apply_quotas);
  apply_part(applying, parts, "keys", apply_keys);
  applying->provider = Datum{0};
}

// Nobody else changes the configuration until the transaction ends, so that two documents are applied one after the
// other, and what is read here stays so. Selections go on.
static void lock_configuration(void) {
  if (IsolationUsesXactSnapshot())
    ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
            errmsg("keypool_apply needs the isolation level READ COMMITTED"),
            errdetail("What others have changed since this transaction began would be missed."));
  for (Oid table : {relations().provider_keys, relations().quotas, relations().providers, relations().error_rules})
    LockRelationOid(table, ShareRowExclusiveLock);
}

static void apply_providers(Applying *applying, struct varlena *providers) {
  document_each(&applying->path, providers,
                [&](std::string_view name, struct varlena *value) { apply_provider(applying, name, value); });
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_apply);
Datum keypool_apply(PG_FUNCTION_ARGS) {
  hide_running_statement();
  argument_require(fcinfo, 0, "document");
  argument_require(fcinfo, 1, "prune");
  report_if_read_only("keypool_apply");
  privileges_require_everywhere(Right::kOperator);
  master_keys_check();  // before anything is locked: a command may take its time
  InitMaterializedSRF(fcinfo, 0);
  Applying applying = {reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo), {}, PG_GETARG_BOOL(1), Datum{0}};
  lock_configuration();
  SPI_connect();
  document_path_open(&applying.path);
  Settings parts = read_settings("document", PG_GETARG_VARLENA_P(0), kDocument, lengthof(kDocument));
  apply_part(&applying, parts, "providers", apply_providers);
  apply_part(&applying, parts, "error_rules", apply_error_rules);
  document_path_close(&applying.path);
  SPI_finish();
  return Datum{0};
}

}  // extern "C"
