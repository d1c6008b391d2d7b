# Makefile - builds and installs keypool with PGXS; `make demo` shows it, `make check` tests it.

ifneq ($(filter demo check check-matrix check-assert check-valgrind soak bench fuzz,$(MAKECMDGOALS)),)

# The commands for a fresh machine. They install what is missing, build and install keypool, and run the rest beside a
# throw-away cluster, as a user who may do that. PGXS may not be there yet, and has a target `check` of its own.
AS_ROOT = $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: demo check check-matrix check-assert check-valgrind soak bench fuzz installed
demo: installed
	@test/lib/unprivileged test/lib/with-cluster demo/run

check: installed
	@test/lib/unprivileged test/run

# The same experiments at length, about an hour.
soak: installed
	@test/lib/install-dependencies sqlsmith
	@test/lib/unprivileged test/soak

# On every version of PostgreSQL that is supported, with both compilers.
check-matrix:
	@$(AS_ROOT) test/check-matrix

# In a server that was built to notice faults: with its assertions and sanitizers, or under valgrind.
check-assert check-valgrind:
	@$(AS_ROOT) test/$@

# ROUNDS, SECONDS_PER_RUN and CASES may be set, see bench/run, and HUGE_PAGES=off. A run of all cases renews docs/performance.*.
bench: installed
	@test/lib/install-dependencies redis-tools valgrind
	@$(AS_ROOT) $(MAKE) --no-print-directory -s -C bench/floor install
	@mkdir -p build
	@KEYPOOL_CLUSTER_CONF="$$(cat bench/postgresql.conf)" \
		bench/with-huge-pages test/lib/unprivileged test/lib/with-cluster bench/run >build/bench.json
	@bench/report build/bench.json $(if $(CASES),,docs)

# A long run: each fuzzer FUZZ_RUNS times.
FUZZ_RUNS ?= 20000000
fuzz:
	@test/lib/install-dependencies
	@test/fuzz/run $(FUZZ_RUNS)

installed:
	@test/lib/install-dependencies
	@echo "== Building and installing keypool"
	@$(MAKE) --no-print-directory -s all
	@$(AS_ROOT) $(MAKE) --no-print-directory -s install

else

EXTENSION = keypool
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" keypool.control)
MODULE_big = keypool
OBJS = \
	src/core/base64.o \
	src/core/envelope.o \
	src/core/key_id.o \
	src/core/key_state_text.o \
	src/core/keyring.o \
	src/core/known_values.o \
	src/core/lease.o \
	src/core/log_redaction.o \
	src/core/provider_name.o \
	src/core/redaction.o \
	src/core/registers.o \
	src/core/selection_order.o \
	src/core/status.o \
	src/core/window.o \
	src/pg/arguments.o \
	src/pg/clock.o \
	src/pg/doctor.o \
	src/pg/freed_keys.o \
	src/pg/grant.o \
	src/pg/heal.o \
	src/pg/import.o \
	src/pg/key_access.o \
	src/pg/key_admin.o \
	src/pg/key_ids.o \
	src/pg/keyring_view.o \
	src/pg/listing.o \
	src/pg/log_hiding.o \
	src/pg/master_keys.o \
	src/pg/module.o \
	src/pg/owner_query.o \
	src/pg/pgp.o \
	src/pg/pool_cache.o \
	src/pg/pool_walk.o \
	src/pg/private_file.o \
	src/pg/provider_changes.o \
	src/pg/reactivation.o \
	src/pg/relations.o \
	src/pg/report.o \
	src/pg/rights.o \
	src/pg/secrets.o \
	src/pg/selection.o \
	src/pg/selection_row.o \
	src/pg/settings.o \
	src/pg/settlement.o \
	src/pg/source_table.o \
	src/pg/state_log.o \
	src/pg/state_store.o \
	src/pg/state_type.o \
	src/pg/statement_hiding.o \
	src/pg/triggers.o

# Released install scripts and the way from each to the next; the newest is built of sql/keypool.sql.
DATA = sql/keypool--0.1.0.sql sql/keypool--0.1.0--0.2.0.sql
DATA_built = sql/keypool--$(EXTVERSION).sql
EXTRA_CLEAN = $(DATA_built) $(OBJS:.o=.d)

# For `make installcheck` on a running server, whose keypool.master_key_file must be set.
REGRESS = $(patsubst sql/%.sql,%,$(filter-out sql/keypool%,$(wildcard sql/*.sql)))

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

sql/keypool--$(EXTVERSION).sql: sql/keypool.sql
	cp $< $@

-include $(OBJS:.o=.d)

endif
