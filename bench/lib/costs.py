# costs.py - the cases that are not throughputs: latency, memory, WAL, instructions.
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile

from many import PROVIDERS, make_many
from postgres import BIN, PSQL, Failed, Session, percentiles, pgbench, run, sql
from results import ROUNDS, SECONDS, clients_text, in_turns, not_measured, result
from speed import any_id, any_key, make_pool

# Calls a function for every number of a series in one statement, one after the other, and keeps nothing of the answers.
CALLS = "SELECT count(answer) FROM (SELECT {call} AS answer FROM (SELECT generate_series(1, {count}) AS n) numbers) answers"


# Milliseconds of the first statement of a new connection, as the client sees them.
def first_statement(call):
    out = run(PSQL + ["-d", "bench", "-c", r"\timing on", "-c", f"SELECT * FROM {call}"])
    return float(re.search(r"^Time: ([\d.]+) ms", out, re.MULTILINE)[1])


# How much longer than that of a function that does nothing the first selection of a connection takes.
def first_call(case):
    for keys, target in ((10, 3), (10000, 60)):
        make_pool(f"pool{keys}", keys)
        longer = []
        for _ in range(ROUNDS):
            floor, ours = [], []
            for _ in range(10):
                floor.append(first_statement(f"keypool_floor_select('pool{keys}', 10)"))
                ours.append(first_statement(f"keypool_select('pool{keys}', 10)"))
            longer.append(statistics.median(ours) - statistics.median(floor))
        result(case, f"{keys:,} keys, beyond the floor's", longer, "ms", ("at most", target), "medians of 10 connections")


# Latency of calls as they come back to back from so many clients.
def latency(case):
    make_pool("pool10", 10)
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    for name, ours, floor, options in (
            ("select", "select", "floor-select", {"provider": "pool10"}),
            ("record, not waiting for the disk", any_key("record"), any_key("floor-record"), {"synchronous_commit": "off"})):
        for clients in (1, 8, 32):
            def calls(scripts):
                return lambda: percentiles(scripts, clients, SECONDS, shares.values(), **options)
            values = in_turns({"keypool": calls(ours), "floor": calls(floor)})
            for number, share in enumerate(shares):
                beside = statistics.median(found[number] for found in values["floor"])
                result(case, f"{name}, {clients_text(clients)}, {share}", [found[number] for found in values["keypool"]], "us",
                       note=f"floor {beside:,.0f} us")


# Bytes of memory that belong to one server process alone: its heap, but not what it shares or could read again from a file.
def private_memory(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return int(re.search(r"^Anonymous: +(\d+) kB", file.read(), re.MULTILINE)[1]) * 1024


# The private memory of a session that made these calls.
def memory_after(call, count, database="bench"):
    with Session(database) as session:
        if session.ask(CALLS.format(call=call, count=count)) != [str(count)]:
            raise Failed(f"not every call was answered: {call}")
        return private_memory(session.pid)


def memory_beyond_floor(provider, count, database="bench"):
    return [memory_after(f"keypool_select({provider}, 10)", count, database)
            - memory_after(f"keypool_floor_select({provider}, 10)", count, database) for _ in range(ROUNDS)]


def memory(case):
    make_pool("pool10", 10)
    small = memory_beyond_floor("'pool10'", 10000)
    make_pool("pool10000", 10000)
    large = memory_beyond_floor("'pool10000'", 20000)
    limit = (1024 * 1024 + 300 * 10000) / 1024
    result(case, "10 keys known, beyond the floor's", [size / 1024 for size in small], "kB",
           ("at most", 1024 + 3))
    result(case, "10,000 keys known, beyond the floor's", [size / 1024 for size in large], "kB", ("at most", limit))
    result(case, "each key of 10,000", [(b - a) / 9990 for a, b in zip(small, large)], "bytes")


def many_memory(case):
    make_many()
    used = memory_beyond_floor("'p' || n", PROVIDERS, "many")
    result(case, f"{PROVIDERS:,} providers of 3 keys served, beyond the floor's", [size / 1024 / 1024 for size in used], "MB",
           ("at most", 16))


# Bytes of WAL that the whole cluster wrote while a session ran statements. The session itself asks, since a new one may tidy pages of the
# catalog.
def wal_written(session, statements):
    before = session.ask("SELECT pg_current_wal_insert_lsn()")[0]
    for statement in statements:
        session.ask(statement)
    return int(session.ask(f"SELECT pg_current_wal_insert_lsn() - '{before}'")[0])


# The mean length of the WAL records that a load of `record-floor` writes: the least of several, since all that the cluster writes is counted.
def record_length(script):
    lengths = []
    for _ in range(5):
        before = sql("SELECT wal_bytes FROM pg_stat_wal")[0]
        pgbench(any_key(script), 1, ["-t", "10000"], synchronous_commit="off")
        lengths.append((int(sql("SELECT wal_bytes FROM pg_stat_wal")[0]) - int(before)) / 10000)
    return min(lengths)


def wal(case):
    make_pool("pool10", 10)
    count = 100000
    key = any_id("pool10")
    sql("CHECKPOINT")
    with Session() as session:
        calls = {"select": ("keypool_select('pool10', 10)", "on"), "record": (f"keypool_record('{key}', 1)::text", "off")}
        found = {}
        for name, (call, commit) in calls.items():
            session.ask(f"SET synchronous_commit = {commit}")
            statement = CALLS.format(call=call, count=count)
            wal_written(session, [statement])  # the first touch of each page after the checkpoint
            found[name] = [wal_written(session, [statement]) / count for _ in range(ROUNDS)]
        one = CALLS.format(call=f"keypool_record('{key}', 1)::text", count=1)
        session.ask("SET synchronous_commit = on")
        found["commit"] = [wal_written(session, 1000 * [one]) / 1000 for _ in range(ROUNDS)]
    result(case, "a selection", [round(value, 2) for value in found["select"]], "bytes", ("at most", 0))
    ours, floor = (record_length(script) for script in ("record", "floor-record"))
    if abs(ours - floor) > 8:
        raise Failed(f"the floor writes {floor:.0f} bytes, keypool_record {ours:.0f}: they should be alike")
    result(case, "a record", found["record"], "bytes", ("at most", 200), f"{ours:.0f} before alignment, the floor {floor:.0f}")
    result(case, "a record and its COMMIT", found["commit"], "bytes", ("at most", 200))


HEADERS = json.dumps({"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": "1s",
                      "retry-after": "20", "content-type": "application/json"})

# What is counted: name, call; and what is at most so many times as much as another.
COUNTED = (("select", "keypool_select('pool10', 10)"), ("the floor of select", "keypool_floor_select('pool10', 10)"),
           ("record", "keypool_record('{key}', 1)::text"), ("the floor of record", "keypool_floor_record('{key}', 1)::text"),
           ("report", "keypool_report('{key}', NULL, 200, tokens => 1)"),
           ("report with five headers", "keypool_report('{key}', NULL, 200, '{headers}', tokens => 1)"),
           ("select under one quota", "keypool_select('quotas1', 10)"), ("select under three quotas", "keypool_select('quotas3', 10)"))
AGAINST = (("report with five headers", "record", 1.5), ("select under one quota", "select", 1.3), ("select under three quotas", "select", 1.8))


# Counts with valgrind, in a server without other processes: the same on every machine, and not disturbed by load. The calls are made in one
# statement, so that they are counted alone, without the protocol and the start of a statement. Between the statements a
# function that does nothing marks where callgrind begins a new count.
def instructions(case):
    if shutil.which("valgrind") is None:
        not_measured(case, "valgrind is not installed")
        return
    few, many = 1000, 3000
    with tempfile.TemporaryDirectory() as folder:
        single = start_single(folder)
        key = single_user(single, folder, ["SELECT id FROM keypool.provider_keys WHERE provider_id = 'pool10' LIMIT 1"])
        key = re.search(r'id = "([0-9a-f-]{36})"', key)[1]
        statements = []
        for _, call in COUNTED:
            for count in (few, few, many):
                statements += [CALLS.format(call=call.format(key=key, headers=HEADERS), count=count), "SELECT keypool_floor_mark()"]
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/count", "--dump-before=keypool_floor_mark"]
        single_user(valgrind + single, folder, statements)
        counts = [count_of(f"{folder}/count.{number + 1}") for number in range(3 * len(COUNTED))]
    found = {}
    for number, (name, _) in enumerate(COUNTED):
        _, first, second = counts[3 * number:3 * number + 3]
        found[name] = (second - first) / (many - few)
        result(case, f"{name}, a call within a statement", [found[name]], "instructions")
    for name, other, most in AGAINST:
        result(case, f"{name}, against {other}", [found[name] / found[other]], target=("at most", most))


def count_of(path):
    with open(path) as file:
        return int(re.search(r"^(?:totals|summary): (\d+)", file.read(), re.MULTILINE)[1])


# A second cluster, with the settings of the first and one pool; the command for its server.
def start_single(folder):
    run([f"{BIN}/initdb", "-D", f"{folder}/data", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync"])
    with open(f"{folder}/data/postgresql.conf", "a") as settings:
        settings.write(f"keypool.master_key_file = '{os.environ['KEYPOOL_KEYRING']}'\nsynchronous_commit = off\n")
    single = [f"{BIN}/postgres", "--single", "-D", f"{folder}/data", "postgres"]
    with open(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "sql", "keypool.sql")) as file:
        text = re.sub(r"--.*", "", file.read())
    single_user(single, folder, [" ".join(part.split()) for part in re.split(r";\n(?=\n|[A-Z])", text) if part.strip()]
                + ["CALL make_pool('pool10', 10)", "CALL make_quota_pool('quotas1', 10, 1)", "CALL make_quota_pool('quotas3', 10, 3)"])
    return single


# Feeds statements to a server without other processes; each takes one line.
def single_user(command, folder, statements):
    done = subprocess.run(command, input="\n".join(statements) + "\n", capture_output=True, text=True, cwd=folder)
    if done.returncode != 0 or re.search(r"\b(ERROR|FATAL):", done.stderr):
        raise Failed(f"{' '.join(command)}\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done.stdout
