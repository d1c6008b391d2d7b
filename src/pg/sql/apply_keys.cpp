// apply_keys.cpp - the keys of a document.
#include "pg/server/postgres_api.h"

extern "C" {
#include "utils/array.h"
}

#include "core/secret/envelope.h"
#include "pg/catalog/owner_query.h"
#include "pg/catalog/relations.h"
#include "pg/secrets/pgp.h"
#include "pg/secrets/statement_hiding.h"
#include "pg/server/arguments.h"
#include "pg/server/key_ids.h"
#include "pg/sql/apply.h"
#include "pg/sql/key_admin.h"
#include "pg/sql/setting_columns.h"

using keypool::KeyId;

// A key's own settings come first, then what only a document says of it.
static constexpr int kOwnSettings = lengthof(kKeySettings) - 1;
static_assert(kKeySettings[kOwnSettings].kind == SettingKind::kRefused);

static constexpr struct KeySettingsOfDocument {
  SettingColumn columns[kOwnSettings + 2] = {};

  constexpr KeySettingsOfDocument() {
    for (int i = 0; i < kOwnSettings; ++i) columns[i] = kKeySettings[i];
    columns[kOwnSettings] = {"id", SettingKind::kText, 0, 0, nullptr};
    columns[kOwnSettings + 1] = {"secret", SettingKind::kText, 0, 0, nullptr};
  }
} kOfDocument;

static const char *const kReadKeys =
    "SELECT * FROM keypool.provider_keys WHERE provider_id OPERATOR(pg_catalog.=) $1"
    " ORDER BY id USING OPERATOR(pg_catalog.<)";
static const char *const kFindKey = "SELECT FROM keypool.provider_keys WHERE id OPERATOR(pg_catalog.=) $1";

[[noreturn]] static void refuse(const char *message) {
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", message));
  pg_unreachable();
}

// The keys that have an id or a label: one, or for labels several.
struct Named {
  char name[1024];  // padded with zeros
  uint64 at;        // of the provider's rows; their count: it is new
  int in_table;     // keys that have it
  int in_document;
  bool by_label;  // the document knows one of its keys by this label
};

struct KeysOfProvider {
  Rows rows;
  Relation table;
  HTAB *ids;
  HTAB *labels;
  bool *named;  // by the document
};

static HTAB *make_names(const char *what) {
  HASHCTL control = {};
  control.keysize = sizeof(Named::name);
  control.entrysize = sizeof(Named);
  control.hcxt = CurrentMemoryContext;
  return hash_create(what, 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

// The entry of a name; a new one is of no key.
static Named *find_name(HTAB *names, std::string_view name, uint64 count) {
  char padded[sizeof(Named::name)] = {};
  memcpy(padded, name.data(), Min(name.size(), sizeof(padded)));
  bool found;
  auto *entry = static_cast<Named *>(hash_search(names, padded, HASH_ENTER, &found));
  if (!found) {
    entry->at = count;
    entry->in_table = entry->in_document = 0;
    entry->by_label = false;
  }
  return entry;
}

static std::string_view id_text(Datum id) { return DatumGetCString(DirectFunctionCall1(uuid_out, id)); }

static void enter_row(KeysOfProvider *keys, HTAB *names, std::string_view name, uint64 at) {
  Named *entry = find_name(names, name, keys->rows.count);
  entry->at = at;
  ++entry->in_table;
}

static KeysOfProvider read_keys(const Applying &applying) {
  KeysOfProvider keys = {};
  keys.rows = read_rows(applying, kReadKeys);
  keys.table = table_open(relations().provider_keys, NoLock);
  keys.ids = make_names("keypool ids of keys");
  keys.labels = make_names("keypool labels of keys");
  keys.named = static_cast<bool *>(palloc0(keys.rows.count + 1));
  for (uint64 i = 0; i < keys.rows.count; ++i) {
    bool is_null;
    enter_row(&keys, keys.ids, id_text(keys.rows.get(i, "id", &is_null)), i);
    Datum label = keys.rows.get(i, "key_label", &is_null);
    if (!is_null) enter_row(&keys, keys.labels, text_view(DatumGetTextPP(label)), i);
  }
  return keys;
}

// The type's own function would quote what it cannot read.
static Datum read_id(std::string_view given) {
  bool is_uuid = given.size() == 36;
  for (size_t i = 0; is_uuid && i < given.size(); ++i) {
    bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    is_uuid = dash ? given[i] == '-' : isxdigit(static_cast<unsigned char>(given[i])) != 0;
  }
  if (!is_uuid) refuse("id must be a UUID");
  return DirectFunctionCall1(uuid_in, CStringGetDatum(pnstrdup(given.data(), given.size())));
}

// Labels tell keys apart only where each is one key's, in the table and in the document.
static void note_label(Named *label, bool knows_by_it) {
  ++label->in_document;
  label->by_label = label->by_label || knows_by_it;
  if (label->by_label && label->in_document > 1) refuse("the document has this key_label twice");
  if (knows_by_it && label->in_table > 1)
    refuse("key_label is that of several keys: give the id of the one that is meant");
}

// Which of the provider's keys is meant; their count if it is new. `*id` is 0 if the document does not say it.
static uint64 resolve_key(KeysOfProvider *keys, const Settings &settings, Datum *id) {
  struct varlena *given_id = settings.value_of("id"), *label = settings.value_of("key_label");
  if (given_id == nullptr && label == nullptr) refuse("a key must have an id or a key_label");
  Named *by_label = label == nullptr ? nullptr : find_name(keys->labels, text_view(label), keys->rows.count);
  if (by_label != nullptr) note_label(by_label, given_id == nullptr);
  if (given_id == nullptr) return by_label->at;
  *id = read_id(text_view(given_id));
  Named *by_id = find_name(keys->ids, id_text(*id), keys->rows.count);
  if (++by_id->in_document > 1) refuse("the document has this key twice");
  return by_id->at;
}

static void refuse_foreign(Datum id) {
  QueryArguments arguments;
  arguments.Add(UUIDOID, id);
  if (owner_execute_connected(kFindKey, arguments) != 0) refuse("id is that of a key of another provider");
}

// The secret of a key, which comes sealed for this server; null: the document has none.
static struct varlena *secret_of(const Settings &settings) {
  struct varlena *secret = settings.value_of("secret");
  if (secret == nullptr) return nullptr;
  hide_given_secret(text_view(secret));
  if (!is_pgp_message(text_view(secret)))
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("secret must be an OpenPGP message"),
            errhint("Encrypt it to keypool_public_key(), or leave it out and use keypool_set_secret()."));
  return secret;
}

static NewSecret take_secret(struct varlena *secret, const KeyId &id, Datum provider, const SecretUse &use) {
  if (secret == nullptr) return {document_text(keypool::kNoSecret), nullptr};
  return take_new_secret(text_view(secret), {id, text_view(DatumGetTextPP(provider))}, use, nullptr);
}

// What stands for a key in the answer: its label, else its id.
static Datum name_of(const Settings &settings, Datum id) {
  struct varlena *label = settings.value_of("key_label");
  return label != nullptr ? PointerGetDatum(label) : PointerGetDatum(document_text(id_text(id)));
}

// `own` is without what the document alone says.
static void add_key(const Applying &applying, const Settings &settings, const Settings &own, Datum id) {
  if (id != Datum{0}) refuse_foreign(id);
  KeyId key = id != Datum{0} ? key_id_from_datum(id) : new_key_id(text_view(DatumGetTextPP(applying.provider)));
  if (struct varlena *label = settings.value_of("key_label")) check_new_label(text_view(label), nullptr);
  SecretUse use = {settings.value_of("account"), settings.value_of("attributes")};
  NewSecret secret = take_secret(secret_of(settings), key, applying.provider, use);
  insert_key(key, applying.provider, secret, own);
  put_change(applying, "key", name_of(settings, key_id_datum(key)), "added", Datum{0});
}

// Whether the row has another secret.
static bool is_new_secret(const Rows &rows, uint64 at, const NewSecret &secret) {
  bool is_null;
  Datum known = rows.get(at, "fingerprint", &is_null);
  return is_null || !datum_image_eq(known, PointerGetDatum(secret.fingerprint), false, -1);
}

static void change_secret(const Applying &applying, const KeysOfProvider &keys, uint64 at, const Settings &settings,
                          Datum id) {
  struct varlena *given = secret_of(settings);
  if (given == nullptr) return;
  SecretUse use = {settings.value_of("account"), settings.value_of("attributes")};
  NewSecret secret = take_secret(given, key_id_from_datum(id), applying.provider, use);
  if (!is_new_secret(keys.rows, at, secret)) return;
  replace_secret(key_id_from_datum(id), secret);
  put_change(applying, "key", name_of(settings, id), "secret changed", Datum{0});
}

static void change_key(const Applying &applying, const KeysOfProvider &keys, uint64 at, const Settings &settings,
                       Settings own) {
  bool is_null;
  Datum id = keys.rows.get(at, "id", &is_null);
  complete_settings(&own);
  Datum changed = keep_changes(&own, keys.rows.rows[at], keys.rows.columns, keys.table);
  if (!is_empty_array(changed)) {
    update_key(key_id_from_datum(id), own);
    put_change(applying, "key", name_of(settings, id), "changed", changed);
  }
  change_secret(applying, keys, at, settings, id);
}

static void apply_key(const Applying &applying, KeysOfProvider *keys, struct varlena *object) {
  Settings settings = read_settings("a key", object, kOfDocument.columns, lengthof(kOfDocument.columns));
  Settings own = settings;
  own.count = kOwnSettings;
  Datum id = 0;
  uint64 at = resolve_key(keys, settings, &id);
  if (keys->named[at] && at < keys->rows.count) refuse("the document has this key twice");
  keys->named[at] = true;
  if (at == keys->rows.count)
    add_key(applying, settings, own, id);
  else
    change_key(applying, *keys, at, settings, own);
}

// What the document does not name is switched off, and stays so.
static void switch_off(const Applying &applying, const KeysOfProvider &keys, uint64 at) {
  Settings off = {};
  off.columns = kOfDocument.columns;
  off.count = kOwnSettings;
  int active = off.index_of("is_active"), until = off.index_of("inactive_until");
  off.given[active] = off.given[until] = off.reset[until] = true;
  off.values[active] = BoolGetDatum(false);
  if (is_empty_array(keep_changes(&off, keys.rows.rows[at], keys.rows.columns, keys.table))) return;
  bool is_null;
  Datum id = keys.rows.get(at, "id", &is_null);
  update_key(key_id_from_datum(id), off);
  Datum label = keys.rows.get(at, "key_label", &is_null);
  put_change(applying, "key", is_null ? PointerGetDatum(document_text(id_text(id))) : label, "switched off", Datum{0});
}

void apply_keys(Applying *applying, struct varlena *list) {
  KeysOfProvider keys = read_keys(*applying);
  document_each(&applying->path, list,
                [&](std::string_view, struct varlena *value) { apply_key(*applying, &keys, value); });
  for (uint64 i = 0; applying->prune && i < keys.rows.count; ++i)
    if (!keys.named[i]) switch_off(*applying, keys, i);
  table_close(keys.table, NoLock);
}
