# keypool_server.py - what the tests of this folder share: a server with keypool, how long they run, and what they print.
#
# The server is found by PGHOST, PGPORT and PGUSER (a superuser). Times are microseconds since 1970, as in the model.
import argparse
import datetime
import os
import random

import psycopg2

from slots_model import SECOND

START = 1_767_268_800 * SECOND  # 2026-01-01 12:00 UTC
LISTED_KEY = ("id", "priority", "is_active", "weight", "max_rpm", "max_tpm", "last_429_at", "cooldown_until",
              "total_requests", "total_tokens", "last_used_at", "window_requests", "window_tokens", "open_reservations",
              "in_flight", "breaker", "breaker_until", "breaker_reason")
LISTED_QUOTA = ("id", "name", "account", "counts", "total_requests", "total_tokens", "window_requests", "window_tokens",
                "day_requests", "day_tokens", "month_requests", "month_tokens", "in_flight", "blocked_until",
                "retry_after_ms")
TABLES = ("provider_keys", "quotas", "providers", "key_meters", "quota_meters")
TURN = "substring(meter::text FROM 'turn=([0-9]+)')::bigint"


# An asynchronous connection has no autocommit to be set: each of its statements is a transaction.
def connect(database, **options):
    connection = psycopg2.connect(dbname=database, options="-c timezone=UTC", **options)
    if not options.get("async_"):
        connection.autocommit = True
    return connection


# A connection to a new database of this name, with the extension in it. Autovacuum would make sessions forget what they
# know of keys, at no time that a test can tell.
def connect_to_new(database):
    cursor = connect("postgres").cursor()
    cursor.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
    cursor.execute(f"CREATE DATABASE {database}")
    connection = connect(database)
    cursor = connection.cursor()
    cursor.execute("CREATE EXTENSION keypool CASCADE")
    for table in TABLES:
        cursor.execute(f"ALTER TABLE keypool.{table} SET (autovacuum_enabled = off)")
    return connection


# A time, as keypool.test_now reads it.
def clock_text(clock):
    time = datetime.datetime.fromtimestamp(clock // SECOND, datetime.timezone.utc)
    return f"{time:%Y-%m-%d %H:%M:%S}.{clock % SECOND:06d}+00"


def micros(time):
    return None if time is None else round(time.timestamp() * SECOND)


# What a list of keypool shows, with times and limits in the form of the model.
def rows_of(cursor, columns):
    rows = [dict(zip(columns, row)) for row in cursor.fetchall()]
    for row in rows:
        for name, value in row.items():
            if isinstance(value, datetime.datetime):
                row[name] = micros(value)
            elif name in ("max_rpm", "max_tpm"):
                row[name] = value or None
    return rows


# What keypool_list_keys shows of a provider's keys, and their turns, in the order and the form of the model's Key.listed.
def list_keys(cursor, provider):
    cursor.execute(f"SELECT {', '.join(LISTED_KEY)}, {TURN} AS turn FROM keypool_list_keys(%s)"
                   " JOIN keypool.key_meters ON key_id = id ORDER BY id", (provider,))
    return rows_of(cursor, (*LISTED_KEY, "turn"))


# What keypool_list_quotas shows of a provider's quotas, likewise.
def list_quotas(cursor, provider):
    cursor.execute(f"SELECT {', '.join(LISTED_QUOTA)} FROM keypool_list_quotas(%s) ORDER BY name COLLATE \"C\"",
                   (provider,))
    return rows_of(cursor, LISTED_QUOTA)


# A key's turn, as its meter says.
def turn_of(cursor, key_id):
    cursor.execute(f"SELECT {TURN} FROM keypool.key_meters WHERE key_id = %s", (key_id,))
    return cursor.fetchone()[0]


# How often something is done: briefly in `make check`, at length in `make soak`.
def rounds(brief, long):
    return long if os.environ.get("KEYPOOL_SOAK") else brief


# The options of a test; each amount is a name and its default. The parts of a run have the seeds N, N + 1, ..., so the
# seed of the part that failed repeats that part first.
def read_options(**amounts):
    parser = argparse.ArgumentParser()
    for name, amount in amounts.items():
        parser.add_argument(f"--{name}", type=int, default=amount)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    return parser.parse_args()


class Tap:
    """Numbers the results, and remembers whether one was bad."""

    def __init__(self):
        self.number = 0
        self.failed = 0

    def result(self, good, name):
        self.number += 1
        self.failed += not good
        print(f"{'ok' if good else 'not ok'} {self.number} - {name}", flush=True)

    # Closes the test; answers its exit status.
    def end(self):
        print(f"1..{self.number}")
        return 1 if self.failed else 0


# Notes what an experiment tried, how often, and what was lost; `make soak` makes a table of these lines.
def note_experiment(name, tried, lost):
    print(f"# experiment: {name} | {tried} | {lost}")
