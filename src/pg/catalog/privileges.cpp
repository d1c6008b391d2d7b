// privileges.cpp - which role may do what with which provider.
#include "pg/catalog/privileges.h"

extern "C" {
#include "utils/acl.h"
#include "utils/syscache.h"
}

#include "pg/catalog/relations.h"
#include "pg/server/arguments.h"

// A row of keypool.grants.
struct Grant {
  Oid role;
  Right right;  // kApp for 'app', kMonitor for 'monitor', kOperator for 'operator'
  bool everywhere;
  std::string_view provider;
};

// The last answer that was yes: a gateway asks the same again and again.
struct LastYes {
  uint64 version;
  Oid user;
  Right right;
  char provider[256];
  size_t size;
};

// What is loaded is of use while `loaded_version` is grants_version().
static struct {
  MemoryContext context;  // of `grants`
  Grant *grants;          // all rows
  int grant_count;
  uint64 loaded_version;
  uint64 membership_version;  // grows with each change of a role, or of who is its member
  LastYes last_yes;
} cache;

static void on_role_change(Datum, int, uint32) { ++cache.membership_version; }

void privileges_init(void) {
  cache.context = AllocSetContextCreate(CacheMemoryContext, "keypool grants", ALLOCSET_SMALL_SIZES);
  CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, on_role_change, Datum{0});
  CacheRegisterSyscacheCallback(AUTHOID, on_role_change, Datum{0});
}

uint64 privileges_version(void) { return grants_version() + cache.membership_version; }

static Right right_of(std::string_view name) {
  return name == "operator" ? Right::kOperator : name == "monitor" ? Right::kMonitor : Right::kApp;
}

static void load_grants(void) {
  MemoryContextReset(cache.context);
  MemoryContext before = MemoryContextSwitchTo(cache.context);
  Relation relation = table_open(relations().grants, AccessShareLock);
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, snapshot, 0, nullptr);
  int capacity = 8;
  cache.grant_count = 0;
  cache.grants = static_cast<Grant *>(palloc(capacity * sizeof(Grant)));
  while (HeapTuple row = systable_getnext(scan)) {
    if (cache.grant_count == capacity)
      cache.grants = static_cast<Grant *>(repalloc(cache.grants, (capacity *= 2) * sizeof(Grant)));
    Datum values[kGrantsColumns];
    bool nulls[kGrantsColumns];
    read_grants_row(row, RelationGetDescr(relation), values, nulls);
    Grant *grant = &cache.grants[cache.grant_count++];
    grant->role = DatumGetObjectId(values[kGrantsRole - 1]);
    grant->right = right_of(text_view(DatumGetTextPP(values[kGrantsRights - 1])));
    grant->everywhere = nulls[kGrantsProvider - 1];
    if (!grant->everywhere) grant->provider = text_view(DatumGetTextPCopy(values[kGrantsProvider - 1]));
  }
  systable_endscan(scan);
  UnregisterSnapshot(snapshot);
  table_close(relation, AccessShareLock);
  MemoryContextSwitchTo(before);
}

static void refresh_grants(void) {
  while (cache.loaded_version != grants_version()) {
    cache.loaded_version = 0;
    uint64 version = grants_version();
    load_grants();
    cache.loaded_version = version;
  }
}

static bool includes(Right granted, Right wanted) {
  return granted == Right::kOperator || granted == wanted || wanted == Right::kPeek;
}

bool is_owner(Oid user) {
  if (superuser_arg(user)) return true;
  return has_privs_of_role(user, relations_owner());
}

// `provider` is empty for the right on all of them.
static bool has_right(Oid user, Right right, std::string_view provider) {
  if (is_owner(user)) return true;
  refresh_grants();
  for (int i = 0; i < cache.grant_count; ++i) {
    const Grant &grant = cache.grants[i];
    bool covers = grant.everywhere || (!provider.empty() && grant.provider == provider);
    if (covers && includes(grant.right, right) && has_privs_of_role(user, grant.role)) return true;
  }
  return false;
}

bool privileges_allow(Right right, std::string_view provider) {
  Oid user = GetUserId();
  uint64 version = privileges_version();
  if (cache.last_yes.version == version && cache.last_yes.user == user && cache.last_yes.right == right &&
      provider == std::string_view(cache.last_yes.provider, cache.last_yes.size))
    return true;
  if (!has_right(user, right, provider)) return false;
  if (provider.size() > sizeof(cache.last_yes.provider)) return true;
  cache.last_yes = {version, user, right, {}, provider.size()};
  memcpy(cache.last_yes.provider, provider.data(), provider.size());
  return true;
}

[[noreturn]] static void report_denied(const char *what) {
  ereport(
      ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("permission denied for %s", what),
      errhint("keypool_grant() gives a role the rights 'app', 'monitor' or 'operator', on one provider or on all."));
  pg_unreachable();
}

void privileges_require(Right right, std::string_view provider) {
  if (!privileges_allow(right, provider)) report_denied("the keys of this provider");
}

void privileges_require_everywhere(Right right) {
  if (!has_right(GetUserId(), right, {})) report_denied("the keys of all providers");
}
