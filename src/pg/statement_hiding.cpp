// statement_hiding.cpp - keeping typed secrets out of the server's log and its activity view.
#include "pg/statement_hiding.h"

extern "C" {
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
}

static constexpr const char *kHidden = "<a statement that names keypool_add_key or provider_keys: hidden by keypool>";

static emit_log_hook_type previous_hook;
static TimestampTz hidden_statement = 0;  // the start of the statement that brought a secret

static bool names_secrets(const char *text) {
  return text != nullptr &&
         (strcasestr(text, "keypool_add_key") != nullptr || strcasestr(text, "provider_keys") != nullptr);
}

// Overwrites in place: the text belongs to error reporting, which frees it.
static void blank(char *text) {
  if (text == nullptr) return;
  size_t size = strlen(text) + 1;
  explicit_bzero(text, size);
  strlcpy(text, kHidden, size);
}

// Runs inside error reporting, so it must not raise, and allocates nothing.
static void on_log(ErrorData *report) {
  bool logs_statement = report->elevel == LOG || report->elevel == LOG_SERVER_ONLY;
  bool shown = logs_statement &&
               (names_secrets(report->message) || names_secrets(report->detail) || names_secrets(report->detail_log));
  bool running = names_secrets(debug_query_string) || hidden_statement == GetCurrentStatementStartTimestamp();
  if (shown || running) {
    report->hide_stmt = true;
    report->hide_ctx = true;  // the line of a COPY, the parameters of a statement that failed
  }
  if (shown || (running && logs_statement)) {
    // What log_statement, log_duration and auto_explain write is the statement itself, and its parameters.
    blank(report->message);
    blank(report->detail);
    blank(report->detail_log);
  }
  if (previous_hook != nullptr) previous_hook(report);
}

void statement_hiding_init(void) {
  previous_hook = emit_log_hook;
  emit_log_hook = on_log;
}

void hide_running_statement(void) {
  hidden_statement = GetCurrentStatementStartTimestamp();
  // A shorter text would leave the tail of the longer one behind in shared memory.
  Size size = static_cast<Size>(pgstat_track_activity_query_size);
  auto *filler = static_cast<char *>(palloc(size));
  memset(filler, '.', size);
  filler[size - 1] = '\0';
  pgstat_report_activity(STATE_RUNNING, filler);
  pgstat_report_activity(STATE_RUNNING, kHidden);
  pfree(filler);
}
