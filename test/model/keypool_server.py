# keypool_server.py - what the tests of this folder share: a server with keypool, how long they run, and what they print.
#
# The server is found by PGHOST, PGPORT and PGUSER (a superuser). Times are microseconds since 1970, as in the model.
import argparse
import datetime
import os
import random

import psycopg2

from keypool_model import SECOND

START = 1_767_268_800 * SECOND  # 2026-01-01 12:00 UTC
LISTED = ("id", "priority", "is_active", "max_rpm", "max_tpm", "last_429_at", "cooldown_until", "total_requests",
          "total_tokens", "last_used_at", "window_requests", "window_tokens", "open_reservations")
TIMES = ("last_429_at", "cooldown_until", "last_used_at")


# An asynchronous connection has no autocommit to be set: each of its statements is a transaction.
def connect(database, **options):
    connection = psycopg2.connect(dbname=database, options="-c timezone=UTC", **options)
    if not options.get("async_"):
        connection.autocommit = True
    return connection


# A connection to a new database of this name, with the extension in it.
def connect_to_new(database):
    cursor = connect("postgres").cursor()
    cursor.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
    cursor.execute(f"CREATE DATABASE {database}")
    connection = connect(database)
    connection.cursor().execute("CREATE EXTENSION keypool CASCADE")
    return connection


# A time, as keypool.test_now reads it.
def clock_text(clock):
    time = datetime.datetime.fromtimestamp(clock // SECOND, datetime.timezone.utc)
    return f"{time:%Y-%m-%d %H:%M:%S}.{clock % SECOND:06d}+00"


def micros(time):
    return None if time is None else round(time.timestamp() * SECOND)


# What keypool_list_keys shows of a provider's keys, in the order and the form of the model's Key.listed.
def list_keys(cursor, provider):
    cursor.execute(f"SELECT {', '.join(LISTED)} FROM keypool_list_keys(%s) ORDER BY id", (provider,))
    rows = [dict(zip(LISTED, row)) for row in cursor.fetchall()]
    for row in rows:
        row["max_rpm"], row["max_tpm"] = row["max_rpm"] or None, row["max_tpm"] or None
        for name in TIMES:
            row[name] = micros(row[name])
    return rows


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
