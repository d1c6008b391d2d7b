// rights_listing.cpp - keypool_list_rights: which role was granted what.
#include "pg/server/postgres_api.h"

#include "pg/catalog/owner_query.h"
#include "pg/catalog/privileges.h"
#include "pg/server/arguments.h"

static const char *const kRights =
    "SELECT role, rights, provider_id FROM keypool.grants ORDER BY provider_id NULLS FIRST, rights, role::text";

struct RightsRow {
  Datum values[3];
  bool nulls[3];

  // A role that may operate all providers may operate one that nobody has.
  bool is_of_own_provider() const {
    return privileges_allow(Right::kOperator, nulls[2] ? std::string_view() : text_view(DatumGetTextPP(values[2])));
  }
};

// Rights on all providers concern everybody who operates one.
static void put_rows(ReturnSetInfo *result, RightsRow *rows, uint64 count) {
  bool operates = false;
  for (uint64 i = 0; i < count; ++i) operates = operates || rows[i].is_of_own_provider();
  for (uint64 i = 0; operates && i < count; ++i)
    if (rows[i].nulls[2] || rows[i].is_of_own_provider())
      tuplestore_putvalues(result->setResult, result->setDesc, rows[i].values, rows[i].nulls);
}

extern "C" {

PG_FUNCTION_INFO_V1(keypool_list_rights);
Datum keypool_list_rights(PG_FUNCTION_ARGS) {
  InitMaterializedSRF(fcinfo, 0);
  SPI_connect();
  uint64 count = owner_execute_connected(kRights, {});
  auto *rows = static_cast<RightsRow *>(palloc(Max(count, 1) * sizeof(RightsRow)));
  for (uint64 i = 0; i < count; ++i)
    heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, rows[i].values, rows[i].nulls);
  put_rows(reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo), rows, count);
  SPI_finish();
  return Datum{0};
}

}  // extern "C"
