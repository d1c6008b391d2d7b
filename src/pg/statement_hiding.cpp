// statement_hiding.cpp - keeping typed secrets out of the server's log and its activity view.
#include "pg/statement_hiding.h"

extern "C" {
#include "parser/analyze.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
}

#include "core/redaction.h"

static emit_log_hook_type previous_log_hook;
static post_parse_analyze_hook_type previous_analyze_hook;
static char *filler;                      // as long as what pg_stat_activity shows
static TimestampTz secret_statement = 0;  // the start of the statement that brought a secret; 0: none did

static bool names_secrets(const char *text) {
  return text != nullptr &&
         (strcasestr(text, "keypool_add_key") != nullptr || strcasestr(text, "provider_keys") != nullptr);
}

// Takes the constants out of a text, in place, and wipes what it is shorter by.
static void redact(char *text) {
  if (text == nullptr) return;
  size_t size = strlen(text);
  size_t left = keypool::RedactConstants(text, size, !standard_conforming_strings);
  explicit_bzero(text + left, size - left);
}

// The running statement, if there is one, without its constants; the end of a long one is missing.
static const char *redacted_statement(void) {
  static char shown[16 * 1024];
  if (debug_query_string == nullptr) return nullptr;
  if (debug_query_string != shown) {
    strlcpy(shown, debug_query_string, sizeof(shown));
    redact(shown);
  }
  return shown;
}

static bool statement_has_secret(void) {
  return secret_statement != 0 && secret_statement == GetCurrentStatementStartTimestamp();
}

// Runs inside error reporting, so it must not raise, and allocates nothing.
static void on_log(ErrorData *report) {
  char *const texts[] = {report->message, report->detail, report->detail_log, report->internalquery, report->context};
  bool running = names_secrets(debug_query_string) || statement_has_secret();
  bool named = running;
  for (char *text : texts) named = named || names_secrets(text);
  // What log_statement, log_duration and auto_explain write is the statement itself; else it may be one of a function,
  // or that of another session in a deadlock.
  bool is_statement = named && (report->elevel == LOG || report->elevel == LOG_SERVER_ONLY);
  for (char *text : texts)
    if (is_statement || names_secrets(text)) redact(text);
  if (running) {
    redact(report->internalquery);
    report->hide_ctx = true;  // the line of a COPY, the parameters of a statement that failed
    hide_running_statement();
    if (debug_query_string != nullptr) debug_query_string = redacted_statement();  // shown after STATEMENT
  }
  if (previous_log_hook != nullptr) previous_log_hook(report);
}

static void on_analyze(ParseState *state, Query *query, JumbleState *jumble) {
  if (names_secrets(state->p_sourcetext)) hide_running_statement();
  if (previous_analyze_hook != nullptr) previous_analyze_hook(state, query, jumble);
}

void statement_hiding_init(void) {
  Size size = static_cast<Size>(pgstat_track_activity_query_size);
  filler = static_cast<char *>(MemoryContextAlloc(TopMemoryContext, size));
  memset(filler, '.', size);
  filler[size - 1] = '\0';
  previous_log_hook = emit_log_hook;
  emit_log_hook = on_log;
  previous_analyze_hook = post_parse_analyze_hook;
  post_parse_analyze_hook = on_analyze;
}

void hide_running_statement(void) {
  const char *statement = redacted_statement();
  if (statement_has_secret() || statement == nullptr) return;
  secret_statement = GetCurrentStatementStartTimestamp();
  // A shorter text would leave the tail of the longer one behind in shared memory.
  pgstat_report_activity(STATE_RUNNING, filler);
  pgstat_report_activity(STATE_RUNNING, statement);
}
