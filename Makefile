# Makefile - builds and installs keypool with PGXS; the goals of dev.mk, among them demo and check, are for a fresh machine.

here := $(dir $(firstword $(MAKEFILE_LIST)))
dev_goals := $(shell sed -n 's/^\.PHONY: //p' $(here)dev.mk)

# Several goals are one make after the other: side by side, `clean` would remove what `all` builds. The goals of dev.mk do
# without PGXS, which may not be there yet, and which has a `check` of its own.
ifneq ($(word 2,$(MAKECMDGOALS))$(filter $(dev_goals),$(MAKECMDGOALS)),)

.NOTPARALLEL:
.PHONY: $(MAKECMDGOALS)
$(sort $(filter $(dev_goals),$(MAKECMDGOALS))):
	@$(MAKE) --no-print-directory -C $(here) -f dev.mk $@
$(sort $(filter-out $(dev_goals),$(MAKECMDGOALS))):
	@$(MAKE) --no-print-directory -f $(firstword $(MAKEFILE_LIST)) $@

else

EXTENSION = keypool
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" $(srcdir)/keypool.control)
MODULE_big = keypool
OBJS = \
	src/core/key_id.o \
	src/core/provider_name.o \
	src/core/provider/answer.o \
	src/core/provider/error_rules.o \
	src/core/provider/header_reader.o \
	src/core/provider/json_reader.o \
	src/core/provider/moments.o \
	src/core/quota/account.o \
	src/core/quota/admission.o \
	src/core/quota/affinity.o \
	src/core/quota/amounts.o \
	src/core/quota/breaker.o \
	src/core/quota/call.o \
	src/core/quota/gauge.o \
	src/core/quota/layout_1.o \
	src/core/quota/lease.o \
	src/core/quota/limit_use.o \
	src/core/quota/limits.o \
	src/core/quota/look.o \
	src/core/quota/meter_edit.o \
	src/core/quota/meter_text.o \
	src/core/quota/meter_text_1.o \
	src/core/quota/model_pattern.o \
	src/core/quota/observed_use.o \
	src/core/quota/open_calls.o \
	src/core/quota/refusal.o \
	src/core/quota/refusal_counts.o \
	src/core/quota/selection_groups.o \
	src/core/quota/selection_layout.o \
	src/core/quota/selection_order.o \
	src/core/quota/settling.o \
	src/core/quota/turn.o \
	src/core/quota/upkeep.o \
	src/core/quota/usage.o \
	src/core/quota/waiting_line.o \
	src/core/quota/wakeups.o \
	src/core/quota/walk.o \
	src/core/quota/window.o \
	src/core/secret/base64.o \
	src/core/secret/envelope.o \
	src/core/secret/given_text.o \
	src/core/secret/keyring.o \
	src/core/secret/known_values.o \
	src/core/secret/log_redaction.o \
	src/core/secret/redaction.o \
	src/core/secret/registers.o \
	src/core/secret/secret_fingerprint.o \
	src/core/status.o \
	src/pg/catalog/error_rules.o \
	src/pg/catalog/owner_query.o \
	src/pg/catalog/privileges.o \
	src/pg/catalog/provider_changes.o \
	src/pg/catalog/relations.o \
	src/pg/catalog/source_table.o \
	src/pg/module.o \
	src/pg/pool/affinity_keys.o \
	src/pg/pool/ask_key.o \
	src/pg/pool/blame.o \
	src/pg/pool/breaker_guard.o \
	src/pg/pool/call_meters.o \
	src/pg/pool/choose_key.o \
	src/pg/pool/clear_blocks.o \
	src/pg/pool/commit_breakers.o \
	src/pg/pool/drop_calls.o \
	src/pg/pool/key_access.o \
	src/pg/pool/key_lookup.o \
	src/pg/pool/key_secret.o \
	src/pg/pool/limit_columns.o \
	src/pg/pool/model_orders.o \
	src/pg/pool/pool_cache.o \
	src/pg/pool/pool_load.o \
	src/pg/pool/preferred_keys.o \
	src/pg/pool/provider_rules.o \
	src/pg/pool/refusals.o \
	src/pg/pool/remaining.o \
	src/pg/pool/report_call.o \
	src/pg/pool/settle_call.o \
	src/pg/pool/waiting.o \
	src/pg/secrets/known_master_keys.o \
	src/pg/secrets/log_hiding.o \
	src/pg/secrets/master_key_command.o \
	src/pg/secrets/master_keys.o \
	src/pg/secrets/new_secrets.o \
	src/pg/secrets/pgp.o \
	src/pg/secrets/secrets.o \
	src/pg/secrets/statement_hiding.o \
	src/pg/server/arguments.o \
	src/pg/server/clock.o \
	src/pg/server/key_ids.o \
	src/pg/server/period_clock.o \
	src/pg/server/private_file.o \
	src/pg/server/private_memory.o \
	src/pg/server/report.o \
	src/pg/server/settings.o \
	src/pg/server/utf8.o \
	src/pg/sql/answers.o \
	src/pg/sql/apply.o \
	src/pg/sql/apply_keys.o \
	src/pg/sql/apply_rules.o \
	src/pg/sql/attributes.o \
	src/pg/sql/change_events.o \
	src/pg/sql/doctor.o \
	src/pg/sql/document.o \
	src/pg/sql/events.o \
	src/pg/sql/explain.o \
	src/pg/sql/export.o \
	src/pg/sql/grant.o \
	src/pg/sql/grant_triggers.o \
	src/pg/sql/heal.o \
	src/pg/sql/import.o \
	src/pg/sql/key_admin.o \
	src/pg/sql/key_triggers.o \
	src/pg/sql/keyring_view.o \
	src/pg/sql/listing.o \
	src/pg/sql/meter_triggers.o \
	src/pg/sql/meter_type.o \
	src/pg/sql/metrics.o \
	src/pg/sql/open_calls.o \
	src/pg/sql/provider_pools.o \
	src/pg/sql/quota_admin.o \
	src/pg/sql/quota_listing.o \
	src/pg/sql/quota_overlap.o \
	src/pg/sql/quota_triggers.o \
	src/pg/sql/record_many.o \
	src/pg/sql/rights_listing.o \
	src/pg/sql/selection.o \
	src/pg/sql/selection_request.o \
	src/pg/sql/selection_row.o \
	src/pg/sql/settings_json.o \
	src/pg/sql/settlement.o \
	src/pg/sql/status.o \
	src/pg/sql/trigger_rows.o \
	src/pg/sql/usage.o \
	src/pg/state/event_log.o \
	src/pg/state/meter_log.o \
	src/pg/state/meter_store.o \
	src/pg/state/refusal_rows.o \
	src/pg/state/waiting_lines.o \
	src/pg/state/wakeup_rows.o \
	src/pg/state/wakeups.o

# Released install scripts and the way from each to the next; the newest is built of sql/keypool.sql.
DATA = sql/keypool--0.1.0.sql sql/keypool--0.1.0--0.2.0.sql
DATA_built = sql/keypool--$(EXTVERSION).sql
EXTRA_CLEAN = $(DATA_built) $(OBJS:.o=.d)

# For `make installcheck` on a running server in which keypool is installed and keypool.master_key_file is set.
REGRESS = $(filter-out keypool%,$(basename $(notdir $(wildcard $(srcdir)/sql/*.sql))))
REGRESS_OPTS = --load-extension=pgcrypto --load-extension=keypool
# Whatever the server's own are.
ENCODING = UTF8
NO_LOCALE = 1
ISOLATION = $(basename $(notdir $(wildcard $(srcdir)/test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=$(srcdir)/test

PG_CONFIG ?= pg_config
PG_CPPFLAGS = -I$(srcdir:%/=%)/src
# The core's assertions are for its tests, and for servers that check theirs.
ifeq ($(findstring enable-cassert,$(shell $(PG_CONFIG) --configure)),)
PG_CPPFLAGS += -DNDEBUG
endif
# PostgreSQL's macros do in C what C++20 frowns at.
PG_CXXFLAGS = -std=c++20 -O3 -fno-semantic-interposition -Wno-register -Wno-volatile -Wno-deprecated-volatile -MMD -MP
# The same bytes, wherever the tree and the folder of the build lie.
PG_CXXFLAGS += -ffile-prefix-map=$(srcdir:%/=%)/= -ffile-prefix-map=$(CURDIR)=.
# A PostgreSQL that was built with gcc hands on gcc's warnings.
ifneq ($(findstring clang,$(CXX)),)
PG_CXXFLAGS += -Wno-unknown-warning-option
endif
# Calls within keypool go straight to their functions, as the compiler may assume (-fno-semantic-interposition).
SHLIB_LINK = -lcrypto -Wl,-Bsymbolic
override with_llvm = no

PGXS := $(shell $(PG_CONFIG) --pgxs)
# PGXS links with the C compiler; the objects are C++.
override COMPILER = $(CXX) $(CXXFLAGS)
include $(PGXS)

# In a build elsewhere only sources are looked for here: what is built here is no part of it. PGXS may know where here is from VPATH.
srcdir := $(srcdir)
override VPATH :=
vpath %.cpp $(srcdir)
vpath %.control $(srcdir)

built_folders := $(sort $(dir $(OBJS) $(DATA_built)))
$(OBJS) $(DATA_built): | $(built_folders)
$(built_folders):
	mkdir -p $@

sql/keypool--$(EXTVERSION).sql: $(srcdir)/sql/keypool.sql
	cp $< $@

-include $(OBJS:.o=.d)

endif
