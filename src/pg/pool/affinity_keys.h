// affinity_keys.h - the keys of an order as conversations prefer them.
#pragma once

#include "pg/server/postgres_api.h"

#include "core/quota/affinity.h"
#include "pg/pool/model_orders.h"

// Made when it is first asked for, of the order's candidates; it holds as long as the order.
const keypool::AffinityKey *affinity_keys(const Pool &pool, ModelOrder *order);
