// log_hiding.cpp - keeping typed and bound secrets out of the server's log.
#include "pg/secrets/log_hiding.h"

extern "C" {
#include "tcop/tcopprot.h"
}

#include "core/secret/known_values.h"
#include "core/secret/log_redaction.h"
#include "core/secret/redaction.h"
#include "pg/secrets/statement_hiding.h"

using keypool::KnownValues;

static constexpr size_t kMaxText = 1024 * 1024;  // what is longer is cut off in an entry that something is hidden in

static emit_log_hook_type previous_log_hook;

static bool names_secret(const char *text) { return text != nullptr && keypool::NamesSecret(text); }

// Ends a text at `size`, and wipes what it is shorter by.
static void shorten(char *text, size_t size) { explicit_bzero(text + size, strlen(text + size)); }

static size_t bounded_size(char *text) {
  size_t size = strlen(text);
  if (size <= kMaxText) return size;
  size = static_cast<size_t>(pg_mbcliplen(text, kMaxText, kMaxText));
  shorten(text, size);
  return size;
}

static void hide_values(const KnownValues &values, char *text) {
  if (text == nullptr || values.empty()) return;
  shorten(text, values.Hide(text, bounded_size(text)));
}

// What is typed or bound is quoted by messages that it is not what was expected, and by those of the parser. Those of
// an invalid argument mostly quote its name.
static bool quotes_input(int sqlstate) {
  bool data = ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_DATA_EXCEPTION;
  return (data && sqlstate != ERRCODE_INVALID_PARAMETER_VALUE) || sqlstate == ERRCODE_SYNTAX_ERROR;
}

static bool is_log(const ErrorData *report) { return report->elevel == LOG || report->elevel == LOG_SERVER_ONLY; }

// The constants of the running statement, and what it binds.
static void gather_values(KnownValues *values) {
  auto remember = [](void *all, std::string_view constant) { static_cast<KnownValues *>(all)->Remember(constant); };
  const char *statement = running_statement();
  if (statement != nullptr) keypool::ForEachConstant({statement, strnlen(statement, kMaxText)}, remember, values);
}

// Hides in one text of an entry of a statement that brings a secret, or that names one itself.
static void hide_in(char *text, const ErrorData *report, const KnownValues &constants) {
  if (text == nullptr) return;
  bool doubtful = is_log(report) || names_secret(text);
  size_t size = bounded_size(text);
  const char *statement = running_statement();
  if (!keypool::RedactKnownShape(text, &size, statement == nullptr ? "" : statement)) {
    if (doubtful)
      size = keypool::RedactDoubtful(text, size);
    else if (quotes_input(report->sqlerrcode))
      size = keypool::RedactQuotedInput(text, size);
    size = bound_values().Hide(text, constants.Hide(text, size));
  }
  shorten(text, size);
}

static bool is_own(const ErrorData *report) {
  return report->domain != nullptr && strcmp(report->domain, TEXTDOMAIN) == 0;
}

static void hide_in_message(ErrorData *report) {
  KnownValues constants;
  gather_values(&constants);
  for (char *text : {report->message, report->detail, report->detail_log, report->hint})
    hide_in(text, report, constants);
  constants.Wipe();
}

static void hide_in_entry(ErrorData *report) {
  if (!is_own(report)) hide_in_message(report);
  if (report->internalquery != nullptr)
    shorten(report->internalquery,
            keypool::RedactConstants(report->internalquery, bounded_size(report->internalquery)).written);
}

// Runs inside error reporting, so it must not raise, and allocates nothing.
static void on_log(ErrorData *report) {
  bool brings =
      running_statement_brings_secret() || names_secret(report->context) || names_secret(report->internalquery);
  bool named = brings;
  char *const texts[] = {report->message, report->detail,  report->detail_log,
                         report->hint,    report->context, report->internalquery};
  for (const char *text : texts) named = named || names_secret(text);
  if (named) hide_in_entry(report);
  for (char *text : texts) hide_values(given_secrets(), text);
  if (brings) {
    report->hide_ctx = true;  // lines of a COPY, statements of functions, parameters of a statement that failed
    hide_running_statement();
    redact_running_statement();  // shown after STATEMENT
  }
  if (previous_log_hook != nullptr) previous_log_hook(report);
}

bool log_hiding_comes_first(void) { return emit_log_hook == on_log; }

void log_hiding_init(void) {
  previous_log_hook = emit_log_hook;
  emit_log_hook = on_log;
}
