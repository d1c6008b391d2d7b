// quota_admin.h - the statements that make, change and delete quotas, and set defaults of providers.
#pragma once

#include "pg/server/postgres_api.h"

#include "pg/sql/settings_json.h"

// Makes a quota, or changes what is given of one. False, with nothing done, if it is there already, or not there.
bool write_quota(Datum provider, Datum name, bool is_new, const Settings &settings);
bool delete_quota(Datum provider, Datum name);

// Changes what is given, which is something.
void set_provider(Datum provider, const Settings &settings);
