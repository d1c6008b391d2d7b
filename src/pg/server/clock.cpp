// clock.cpp - what time it is.
#include "pg/server/clock.h"

extern "C" {
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "storage/lwlock.h"
}

#include "pg/server/settings.h"

using keypool::TimeUs;

static struct {
  bool known;  // which is never before the end of recovery
  TimeUs first_second;
} server;

TimeUs clock_now(void) {
  return keypool_test_now != 0 ? keypool_test_now : clock_from_timestamptz(GetCurrentTimestamp());
}

// When the control file was written last: then, or later, at a checkpoint.
static TimeUs control_file_time(void) {
  bool intact;
  LWLockAcquire(ControlFileLock, LW_SHARED);
  ControlFileData *control = get_controlfile(DataDir, &intact);
  LWLockRelease(ControlFileLock);
  if (!intact) ereport(ERROR, errcode(ERRCODE_DATA_CORRUPTED), errmsg("pg_control is damaged"));
  TimeUs time = control->time * keypool::kMicrosPerSecond;
  pfree(control);
  return time;
}

TimeUs clock_first_second(void) {
  if (keypool_test_now != 0 || RecoveryInProgress()) return 0;
  if (!server.known) {
    TimeUs written = control_file_time();
    // A time that has not come yet was a wrong clock's.
    server.first_second = written <= clock_now() ? written + keypool::kMicrosPerSecond : 0;
    server.known = true;
  }
  return server.first_second;
}
