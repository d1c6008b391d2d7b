// settings.cpp - the settings keypool.*.
#include "pg/server/postgres_api.h"

#include "pg/server/settings.h"

#include "core/quota/waiting_line.h"
#include "pg/server/clock.h"

int keypool_breaker_threshold = 5;
int keypool_cache_size = 16384;
int keypool_default_cooldown = 60;
int keypool_keep_events = 1000;
int keypool_max_cooldown = 86400;
int keypool_max_waiters = 50;
bool keypool_log_reservations = false;
char *keypool_master_key_command = nullptr;
char *keypool_master_key_file = nullptr;
char *keypool_pgp_secret_key_file = nullptr;
keypool::TimeUs keypool_test_now = 0;
bool keypool_test_untested_server = false;

static char *test_now_text = nullptr;

// Reads a time without raising: a check hook must answer false instead.
static bool parse_time(const char *text, TimestampTz *time) {
  char work[MAXDATELEN + MAXDATEFIELDS];
  char *fields[MAXDATEFIELDS];
  int types[MAXDATEFIELDS];
  int field_count, kind, tz;
  struct pg_tm tm;
  fsec_t fraction;

  if (ParseDateTime(text, work, sizeof(work), fields, types, MAXDATEFIELDS, &field_count) != 0) return false;
  if (decode_date_time(fields, types, field_count, &kind, &tm, &fraction, &tz) != 0 || kind != DTK_DATE) return false;
  return tm2timestamp(&tm, fraction, &tz, time) == 0;
}

// A longer one would be cut where it is used.
static bool check_length(char **value, void **, GucSource) {
  if (strlen(*value) < MAXPGPATH) return true;
  GUC_check_errdetail("It must be shorter than %d bytes.", MAXPGPATH);
  return false;
}

static bool check_test_now(char **value, void **extra, GucSource) {
  keypool::TimeUs time = 0;
  if (**value != '\0') {
    TimestampTz parsed;
    if (!parse_time(*value, &parsed) || parsed < 0 || clock_from_timestamptz(parsed) >= keypool::kLatestTime) {
      GUC_check_errdetail("It must be a time between 2000-01-01 and 2100-01-01, or empty.");
      return false;
    }
    time = clock_from_timestamptz(parsed);
  }
  *extra = allocate_setting_extra(sizeof(time));
  if (*extra == nullptr) return false;
  memcpy(*extra, &time, sizeof(time));
  return true;
}

static void assign_test_now(const char *, void *extra) { memcpy(&keypool_test_now, extra, sizeof(keypool_test_now)); }

void settings_init(void) {
  DefineCustomStringVariable("keypool.master_key_file", "File that holds the master keys.",
                             "One id:base64(32 bytes) a line; the first seals, all of them open.",
                             &keypool_master_key_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, check_length, nullptr,
                             nullptr);
  DefineCustomStringVariable("keypool.master_key_command", "Command that prints the master keys.",
                             "Its output is read instead of keypool.master_key_file, and again after each reload.",
                             &keypool_master_key_command, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, check_length, nullptr,
                             nullptr);
  DefineCustomStringVariable("keypool.pgp_secret_key_file", "File that holds the server's OpenPGP key.",
                             "The ASCII-armored secret key, and after it the public key.", &keypool_pgp_secret_key_file,
                             "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, check_length, nullptr, nullptr);
  DefineCustomIntVariable("keypool.cache_size", "Memory in which a session keeps what it knows of keys.",
                          "The providers that it used least recently make room for others.", &keypool_cache_size, 16384,
                          64, MAX_KILOBYTES, PGC_USERSET, GUC_UNIT_KB, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("keypool.default_cooldown", "Cooldown of a key after a 429 that says no time.", nullptr,
                          &keypool_default_cooldown, 60, 1, INT_MAX, PGC_SUSET, GUC_UNIT_S, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("keypool.keep_events", "How many events keypool.events keeps, of changes and of calls each.",
                          "0: none are written.", &keypool_keep_events, 1000, 0, 1000000, PGC_SUSET, 0, nullptr,
                          nullptr, nullptr);
  DefineCustomIntVariable("keypool.max_cooldown", "Longest cooldown that a 429 can start.", nullptr,
                          &keypool_max_cooldown, 86400, 1, INT_MAX, PGC_SUSET, GUC_UNIT_S, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("keypool.max_waiters", "How many selections with max_wait may wait for a provider.",
                          "Who finds all places taken is answered at once. Each holds its connection.",
                          &keypool_max_waiters, 50, 0, keypool::kMaxWaiters, PGC_SUSET, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("keypool.breaker_threshold", "Failures of the provider in a row after which a key rests.",
                          "0: it never does for that reason.", &keypool_breaker_threshold, 5, 0, 1000, PGC_SUSET, 0,
                          nullptr, nullptr, nullptr);
  DefineCustomBoolVariable("keypool.log_reservations", "Whether selections write what they reserve to the WAL.",
                           "Then a standby that takes over knows which calls were under way. Nothing waits for it.",
                           &keypool_log_reservations, false, PGC_SUSET, 0, nullptr, nullptr, nullptr);
  DefineCustomStringVariable("keypool.test_now", "Time that keypool takes for now, for tests.",
                             "Empty means the server's clock.", &test_now_text, "", PGC_SUSET, GUC_NOT_IN_SAMPLE,
                             check_test_now, assign_test_now, nullptr);
  DefineCustomBoolVariable("keypool.test_untested_server",
                           "Acts as in a version of the server that keypool is not tested with, for tests.",
                           "Slower, with the same results.", &keypool_test_untested_server, false, PGC_SUSET,
                           GUC_NOT_IN_SAMPLE, nullptr, nullptr, nullptr);
  MarkGUCPrefixReserved("keypool");
}
