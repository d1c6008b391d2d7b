// statement_hiding.cpp - which statement brings a secret, and keeping its constants out of the activity view.
#include "pg/secrets/statement_hiding.h"

extern "C" {
#include "executor/executor.h"
#include "parser/analyze.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/backend_status.h"
}

#include "core/secret/redaction.h"
#include "pg/server/arguments.h"

// Values are known while the statement runs that they came with.
struct StatementValues {
  TimestampTz statement;
  keypool::KnownValues values;
};

// A statement is known by its start; 0: none.
static struct {
  post_parse_analyze_hook_type previous_analyze_hook;
  ExecutorStart_hook_type previous_start_hook;
  ExecutorRun_hook_type previous_run_hook;
  ProcessUtility_hook_type previous_utility_hook;
  char *filler;                   // as long as what pg_stat_activity shows
  TimestampTz secret_statement;   // the last that brought a secret
  TimestampTz started_statement;  // the last that started an executor
  bool has_brought_secret;        // this session, at any time: so it may have prepared a statement that does
  // The text that the log shows in place of the running statement's, and the latter. Each protocol message sets
  // debug_query_string, and takes it back before that text's memory goes.
  char shown_statement[16 * 1024];
  const char *given_statement;
  StatementValues given;
  StatementValues bound;
} hiding;

static bool names_secret(const char *text) { return text != nullptr && keypool::NamesSecret(text); }

const char *running_statement(void) {
  return debug_query_string == hiding.shown_statement ? hiding.given_statement : debug_query_string;
}

static bool statement_is_marked(void) {
  return hiding.secret_statement != 0 && hiding.secret_statement == GetCurrentStatementStartTimestamp();
}

// Whether the text of a statement says that it may be given a secret. The name after EXECUTE is not looked up: this
// runs inside error reporting, and a name can be written in many ways.
static bool text_brings_secret(const char *text) {
  return names_secret(text) || (hiding.has_brought_secret && text != nullptr && keypool::NamesExecute(text));
}

bool running_statement_brings_secret(void) { return statement_is_marked() || text_brings_secret(running_statement()); }

static const keypool::KnownValues &values_now(StatementValues *known) {
  if (known->statement != GetCurrentStatementStartTimestamp()) known->values.Wipe();
  return known->values;
}

const keypool::KnownValues &given_secrets(void) { return values_now(&hiding.given); }
const keypool::KnownValues &bound_values(void) { return values_now(&hiding.bound); }

static void remember(StatementValues *known, std::string_view value) {
  values_now(known);
  known->statement = GetCurrentStatementStartTimestamp();
  known->values.Remember(value);
}

// Copies the running statement without its constants; the end of a long one is missing.
static void copy_redacted(void) {
  if (debug_query_string == hiding.shown_statement) return;
  size_t size = strnlen(debug_query_string, sizeof(hiding.shown_statement) - 1);
  size = static_cast<size_t>(pg_mbcliplen(debug_query_string, static_cast<int>(size), static_cast<int>(size)));
  memcpy(hiding.shown_statement, debug_query_string, size);
  size_t left = size;
  if (running_statement_brings_secret()) left = keypool::RedactConstants(hiding.shown_statement, size).written;
  left = given_secrets().Hide(hiding.shown_statement, left);
  explicit_bzero(hiding.shown_statement + left, sizeof(hiding.shown_statement) - left);
}

void redact_running_statement(void) {
  if (debug_query_string == nullptr || debug_query_string == hiding.shown_statement) return;
  copy_redacted();
  hiding.given_statement = debug_query_string;
  debug_query_string = hiding.shown_statement;
}

void hide_running_statement(void) {
  if (statement_is_marked() || debug_query_string == nullptr) return;
  hiding.secret_statement = GetCurrentStatementStartTimestamp();
  hiding.has_brought_secret = true;
  copy_redacted();
  auto query_id = pgstat_get_my_query_id();
  // A shorter text would leave the tail of the longer one behind in shared memory.
  pgstat_report_activity(STATE_RUNNING, hiding.filler);
  pgstat_report_activity(STATE_RUNNING, hiding.shown_statement);
  pgstat_report_query_id(query_id, true);
}

void hide_given_secret(std::string_view secret) {
  hide_running_statement();
  remember(&hiding.given, secret);
}

static bool is_plain_text(const ParamExternData &value) {
  return !value.isnull && (value.ptype == TEXTOID || value.ptype == VARCHAROID || value.ptype == BPCHAROID) &&
         !VARATT_IS_EXTENDED(DatumGetPointer(value.value));
}

// Parameters of an executor that are there from its start, as those of a Bind message or an EXECUTE.
static void remember_parameters(ParamListInfo parameters) {
  if (parameters == nullptr || parameters->paramFetch != nullptr) return;
  for (int i = 0; i < parameters->numParams; ++i)
    if (is_plain_text(parameters->params[i]))
      remember(&hiding.bound, text_view(reinterpret_cast<text *>(DatumGetPointer(parameters->params[i].value))));
}

static void hide_executed(const QueryDesc *query) {
  if (!names_secret(query->sourceText)) return;
  hide_running_statement();
  remember_parameters(query->params);
}

static void on_analyze(ParseState *state, Query *query, JumbleState *jumble) {
  if (text_brings_secret(state->p_sourcetext)) hide_running_statement();
  if (hiding.previous_analyze_hook != nullptr) hiding.previous_analyze_hook(state, query, jumble);
}

// Bind and Execute messages set the shown text again, and analyse nothing.
static void on_executor_start(QueryDesc *query, int flags) {
  hiding.started_statement = GetCurrentStatementStartTimestamp();
  hide_executed(query);
  if (hiding.previous_start_hook != nullptr)
    hiding.previous_start_hook(query, flags);
  else
    standard_ExecutorStart(query, flags);
}

// A portal that another message started.
static void on_executor_run(QueryDesc *query, ScanDirection direction, uint64 count KEYPOOL_EXECUTE_ONCE) {
  if (hiding.started_statement != GetCurrentStatementStartTimestamp()) hide_executed(query);
  if (hiding.previous_run_hook != nullptr)
    hiding.previous_run_hook(query, direction, count KEYPOOL_EXECUTE_ONCE_ARGUMENT);
  else
    standard_ExecutorRun(query, direction, count KEYPOOL_EXECUTE_ONCE_ARGUMENT);
}

static void on_utility(PlannedStmt *statement, const char *text, bool read_only, ProcessUtilityContext context,
                       ParamListInfo parameters, QueryEnvironment *environment, DestReceiver *receiver,
                       QueryCompletion *completion) {
  if (text_brings_secret(text)) hide_running_statement();
  ProcessUtility_hook_type next =
      hiding.previous_utility_hook != nullptr ? hiding.previous_utility_hook : standard_ProcessUtility;
  next(statement, text, read_only, context, parameters, environment, receiver, completion);
}

static void on_transaction_end(XactEvent, void *) {
  hiding.given.values.Wipe();
  hiding.bound.values.Wipe();
}

void statement_hiding_init(void) {
  Size size = static_cast<Size>(pgstat_track_activity_query_size);
  hiding.filler = static_cast<char *>(MemoryContextAlloc(TopMemoryContext, size));
  memset(hiding.filler, '.', size);
  hiding.filler[size - 1] = '\0';
  hiding.previous_analyze_hook = post_parse_analyze_hook;
  post_parse_analyze_hook = on_analyze;
  hiding.previous_start_hook = ExecutorStart_hook;
  ExecutorStart_hook = on_executor_start;
  hiding.previous_run_hook = ExecutorRun_hook;
  ExecutorRun_hook = on_executor_run;
  hiding.previous_utility_hook = ProcessUtility_hook;
  ProcessUtility_hook = on_utility;
  RegisterXactCallback(on_transaction_end, nullptr);
}
