#!/usr/bin/python3
# waiters.py - many sessions wait for places that come free one after the other.
#
#   waiters.py PROVIDER WAITERS PLACES SECONDS MAX_WAIT
#
# Takes all PLACES of the provider, lets WAITERS sessions select with a max_wait of so many seconds, and when all of them wait gives the
# places back, evenly over SECONDS; who is given one keeps it. Prints one JSON object of times in seconds since the first release, by the
# server's clock: {"freed": [[before, after] of each release], "served": [when each was given a place], "refused": [[asked, answered] of
# each that was not], "others": [what else was answered], "waiting": processes, "cpu": processor time of all waiting processes from when
# all waited to the end of the last release, "wall": how long that was}.
import concurrent.futures
import json
import sys
import time

import psycopg2

SELECT = """SELECT status, extract(epoch FROM a.at)::float8, extract(epoch FROM clock_timestamp())::float8
            FROM (SELECT clock_timestamp() AS at) a CROSS JOIN LATERAL keypool_try_select(%s, max_wait => %s * interval '1 s')"""


def connect():
    connection = psycopg2.connect(dbname="postgres")
    connection.autocommit = True
    return connection


def ask(connection, statement, arguments=()):
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments)
        return cursor.fetchall()


def cpu_of(processes):
    seconds = 0.0
    for process in processes:
        with open(f"/proc/{process}/schedstat", encoding="ascii") as file:
            seconds += int(file.read().split()[0]) / 1e9
    return seconds


def wait_until_all_wait(holder, processes):
    while ask(holder, "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s) AND wait_event_type = 'Extension'",
              (processes,))[0][0] < len(processes):
        time.sleep(0.02)


def main():
    provider, waiters, places, seconds, max_wait = sys.argv[1], *map(int, sys.argv[2:])
    holder = connect()
    held = ask(holder, "SELECT key_id::text, lease FROM keypool_select_many(%s, %s) WHERE status = 'ok'", (provider, places))
    sessions = [connect() for _ in range(waiters)]
    processes = [session.get_backend_pid() for session in sessions]
    freed = []
    with concurrent.futures.ThreadPoolExecutor(waiters) as pool:
        answers = [pool.submit(lambda session: ask(session, SELECT, (provider, max_wait))[0], session) for session in sessions]
        wait_until_all_wait(holder, processes)
        cpu, start = cpu_of(processes), time.monotonic()
        for number, (key, lease) in enumerate(held):
            time.sleep(max(start + number * seconds / places - time.monotonic(), 0))
            freed.append(ask(holder, """SELECT extract(epoch FROM clock_timestamp())::float8, keypool_release(%s, %s),
                                        extract(epoch FROM clock_timestamp())::float8""", (key, lease))[0][::2])
        time.sleep(0.2)
        cpu, wall = cpu_of(processes) - cpu, time.monotonic() - start
        answers = [answer.result() for answer in answers]
    zero = freed[0][0]
    print(json.dumps({
        "freed": [[time - zero for time in times] for times in freed],
        "served": sorted(to - zero for status, _, to in answers if status == "ok"),
        "refused": [[asked - zero, to - zero] for status, asked, to in answers if status == "busy"],
        "others": [status for status, _, _ in answers if status not in ("ok", "busy")],
        "waiting": len(processes), "cpu": cpu, "wall": wall}))


if __name__ == "__main__":
    main()
