# dev.mk - the goals for a fresh machine, which the Makefile hands on to; none of them needs PGXS to be there.
#
# They install what is missing, build and install keypool, and run the rest beside a throw-away cluster, as a user who may
# do that.
AS_ROOT = $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: demo check check-matrix check-package check-assert check-valgrind soak bench fuzz installed
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

# Debian's packages, built on one fresh machine and tested on another.
check-package:
	@$(AS_ROOT) test/check-package

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
