// postgres_api.h - the server's headers, as C, in one place. Include it first.
//
// Everything in src/pg may raise a PostgreSQL error, which is a longjmp: it skips destructors. So nothing here owns
// anything with a destructor: plain structs, and memory from memory contexts.
#pragma once

// A PostgreSQL that was built with gcc marks its functions with an attribute that clang does not know.
#ifdef __clang__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wignored-attributes"
#endif

extern "C" {
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/ilist.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/fd.h"
#include "storage/lmgr.h"
#include "storage/s_lock.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
}

#ifdef __clang__
#pragma clang diagnostic pop
#endif

#include "pg/server/versions.h"

// The domain of keypool's own messages, by which log_hiding.cpp knows them: they repeat no input.
#undef TEXTDOMAIN
#define TEXTDOMAIN "keypool"
