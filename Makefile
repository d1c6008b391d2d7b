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
	src/core/key_state_text.o \
	src/core/lease.o \
	src/core/provider_name.o \
	src/core/secret/base64.o \
	src/core/secret/envelope.o \
	src/core/secret/given_text.o \
	src/core/secret/keyring.o \
	src/core/secret/known_values.o \
	src/core/secret/log_redaction.o \
	src/core/secret/redaction.o \
	src/core/secret/registers.o \
	src/core/secret/secret_fingerprint.o \
	src/core/selection_order.o \
	src/core/state_edit.o \
	src/core/status.o \
	src/core/window.o \
	src/pg/catalog/owner_query.o \
	src/pg/catalog/privileges.o \
	src/pg/catalog/provider_changes.o \
	src/pg/catalog/relations.o \
	src/pg/catalog/source_table.o \
	src/pg/module.o \
	src/pg/pool/choose_key.o \
	src/pg/pool/key_access.o \
	src/pg/pool/key_lookup.o \
	src/pg/pool/pool_cache.o \
	src/pg/pool/reactivation.o \
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
	src/pg/server/private_file.o \
	src/pg/server/private_memory.o \
	src/pg/server/report.o \
	src/pg/server/settings.o \
	src/pg/server/utf8.o \
	src/pg/sql/doctor.o \
	src/pg/sql/grant.o \
	src/pg/sql/heal.o \
	src/pg/sql/import.o \
	src/pg/sql/key_admin.o \
	src/pg/sql/keyring_view.o \
	src/pg/sql/listing.o \
	src/pg/sql/selection.o \
	src/pg/sql/selection_row.o \
	src/pg/sql/settlement.o \
	src/pg/sql/state_type.o \
	src/pg/sql/triggers.o \
	src/pg/state/state_log.o \
	src/pg/state/state_store.o \
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

PG_CPPFLAGS = -I$(srcdir)/src
# PostgreSQL's macros do in C what C++20 frowns at.
PG_CXXFLAGS = -std=c++20 -fno-semantic-interposition -Wno-register -Wno-volatile -Wno-deprecated-volatile -MMD -MP
# A PostgreSQL that was built with gcc hands on gcc's warnings.
ifneq ($(findstring clang,$(CXX)),)
PG_CXXFLAGS += -Wno-unknown-warning-option
endif
# Calls within keypool go straight to their functions, as the compiler may assume (-fno-semantic-interposition).
SHLIB_LINK = -lcrypto -Wl,-Bsymbolic
override with_llvm = no

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
# PGXS links with the C compiler; the objects are C++.
override COMPILER = $(CXX) $(CXXFLAGS)
include $(PGXS)

# In a build elsewhere only sources are looked for here: what is built here is no part of it.
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
