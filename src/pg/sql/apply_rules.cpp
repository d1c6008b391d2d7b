// apply_rules.cpp - the error rules of a document.
#include "pg/server/postgres_api.h"

extern "C" {
#include "utils/array.h"
}

#include "pg/server/arguments.h"
#include "pg/sql/apply.h"
#include "pg/sql/error_rule_admin.h"
#include "pg/sql/settings_json.h"

static constexpr SettingColumn kRule[] = {
    {"provider", SettingKind::kText, 0, 0, nullptr},   {"http_status", SettingKind::kNumber, 100, 999, nullptr},
    {"error_code", SettingKind::kText, 0, 0, nullptr}, {"class", SettingKind::kText, 0, 0, nullptr},
    {"scope", SettingKind::kText, 0, 0, nullptr},
};

static const char *const kReadRules = "SELECT provider, http_status, error_code, class, scope FROM keypool.error_rules";

[[noreturn]] static void refuse(const char *message) {
  ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", message));
  pg_unreachable();
}

static text *text_or_null(const Rows &rows, uint64 i, const char *column) {
  bool is_null;
  Datum value = rows.get(i, column, &is_null);
  return is_null ? nullptr : DatumGetTextPP(value);
}

static ErrorRuleRow rule_of_row(const Rows &rows, uint64 i) {
  bool no_status;
  Datum status = rows.get(i, "http_status", &no_status);
  return {text_or_null(rows, i, "provider"), no_status ? 0 : DatumGetInt32(status), text_or_null(rows, i, "error_code"),
          text_or_null(rows, i, "class"), text_or_null(rows, i, "scope")};
}

static ErrorRuleRow rule_of_document(const Settings &settings) {
  int status = settings.index_of("http_status");
  bool has_status = settings.given[status] && !settings.reset[status];
  text *provider = settings.value_of("provider");
  return {provider != nullptr ? provider : document_text("*"),
          has_status ? static_cast<int32>(DatumGetInt64(settings.values[status])) : 0, settings.value_of("error_code"),
          settings.value_of("class"), settings.value_of("scope")};
}

static bool same_text(const text *one, const text *other) {
  if (one == nullptr || other == nullptr) return one == other;
  return text_view(one) == text_view(other);
}

static bool same_answers(const ErrorRuleRow &one, const ErrorRuleRow &other) {
  return same_text(one.provider, other.provider) && one.status == other.status && same_text(one.code, other.code);
}

// Which of the rows is for the same answers; their count if none is.
static uint64 find_rule(const Rows &rows, const ErrorRuleRow &rule) {
  uint64 i = 0;
  while (i < rows.count && !same_answers(rule_of_row(rows, i), rule)) ++i;
  return i;
}

static Datum name_of(const ErrorRuleRow &rule) {
  std::string_view provider = text_view(rule.provider);
  return CStringGetTextDatum(psprintf("%.*s %s %s", static_cast<int>(provider.size()), provider.data(),
                                      rule.status == 0 ? "*" : psprintf("%d", rule.status),
                                      rule.code == nullptr ? "*" : text_to_cstring(rule.code)));
}

// The rules that are there, and those of the document up to now.
struct Rules {
  Rows rows;
  bool *named;  // of the rows, by the document
  ErrorRuleRow *seen;
  int seen_count;
};

static void note_rule(Rules *rules, const ErrorRuleRow &rule) {
  for (int i = 0; i < rules->seen_count; ++i)
    if (same_answers(rules->seen[i], rule)) refuse("the document has this rule twice");
  rules->seen[rules->seen_count++] = rule;
}

static void apply_rule(const Applying &applying, Rules *rules, struct varlena *object) {
  const Rows &rows = rules->rows;
  ErrorRuleRow rule = rule_of_document(read_settings("an error rule", object, kRule, lengthof(kRule)));
  check_error_rule(rule);
  if (rule.answer_class == nullptr) refuse("class must be given");
  note_rule(rules, rule);
  uint64 at = find_rule(rows, rule);
  rules->named[at] = true;
  ErrorRuleRow known = at < rows.count ? rule_of_row(rows, at) : ErrorRuleRow{};
  if (same_text(known.answer_class, rule.answer_class) && same_text(known.scope, rule.scope)) return;
  set_error_rule(rule);
  put_change(applying, "error rule", name_of(rule), at < rows.count ? "changed" : "added", Datum{0});
}

void apply_error_rules(Applying *applying, struct varlena *list) {
  Rules rules = {read_rows(*applying, kReadRules), nullptr, nullptr, 0};
  rules.named = static_cast<bool *>(palloc0(rules.rows.count + 1));
  auto in_document = static_cast<Size>(JB_ROOT_COUNT(reinterpret_cast<Jsonb *>(list)));
  rules.seen = static_cast<ErrorRuleRow *>(palloc((in_document + 1) * sizeof(ErrorRuleRow)));
  document_each(&applying->path, list,
                [&](std::string_view, struct varlena *value) { apply_rule(*applying, &rules, value); });
  for (uint64 i = 0; applying->prune && i < rules.rows.count; ++i) {
    if (rules.named[i]) continue;
    ErrorRuleRow rule = rule_of_row(rules.rows, i);
    put_change(*applying, "error rule", name_of(rule), "deleted", Datum{0});
    remove_error_rule(rule);
  }
}
