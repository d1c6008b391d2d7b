#!/usr/bin/python3
# rush.py - as many simultaneous calls as there are connections, on a pool that has room for fewer; and what they are told.
#
#   rush.py POOL CALLS ROOM
#
# The pool must be fresh. Every refused call's forecast is tried: a peek from its own session one second before that moment is
# refused, one at that moment is not; and at last calls are made a second later. Prints TAP.
import multiprocessing
import select
import sys
import time

import psycopg2

WORKERS = 8
CALL = "SELECT status, retry_after_ms, extract(epoch FROM clock_timestamp())::float8 FROM keypool_try_select(%s)"  # after the call
PEEK = """SELECT pg_sleep(greatest(0, %s - extract(epoch FROM clock_timestamp())));
          SELECT status, extract(epoch FROM clock_timestamp())::float8 FROM keypool_peek(%s)"""


def ready(connection):
    while True:
        state = connection.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        ends = [connection.fileno()]
        select.select(ends if state == psycopg2.extensions.POLL_READ else [], ends if state == psycopg2.extensions.POLL_WRITE else [], [])


# Sends one statement on every connection before it looks at any answer.
def on_all(connections, statement, arguments):
    cursors = [connection.cursor() for connection in connections]
    for cursor, values in zip(cursors, arguments):
        cursor.execute(statement, values)
    rows = []
    for connection, cursor in zip(connections, cursors):
        ready(connection)
        rows.append(cursor.fetchone())
    return rows


def work(pool, count, barrier, answers):
    connections = [psycopg2.connect("dbname=postgres", async_=True) for _ in range(count)]
    for connection in connections:
        ready(connection)
    on_all(connections, "SELECT status FROM keypool_peek(%s)", [(pool,)] * count)  # connected, and the pool in mind
    barrier.wait()
    first = on_all(connections, CALL, [(pool,)] * count)
    refused = [(connection, at + wait / 1000) for connection, (status, wait, at) in zip(connections, first) if status != "ok"]
    sessions = [connection for connection, _ in refused]
    early = on_all(sessions, PEEK, [(moment - 1, pool) for _, moment in refused])
    due = on_all(sessions, PEEK, [(moment, pool) for _, moment in refused])
    barrier.wait()
    time.sleep(1)  # the first grants may lie in two seconds, and then not all come back in the same one
    again = on_all(connections, CALL, [(pool,)] * count)
    answers.put((first, [moment for _, moment in refused], early, due, again))


def report(number, name, good, detail):
    print(f"{'ok' if good else 'not ok'} {number} - {name}")
    print(f"#   {detail}")
    return good


def main():
    pool, calls, room = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    answers = multiprocessing.Queue()
    barrier = multiprocessing.Barrier(WORKERS)
    shares = [calls // WORKERS + (number < calls % WORKERS) for number in range(WORKERS)]
    workers = [multiprocessing.Process(target=work, args=(pool, share, barrier, answers)) for share in shares]
    begin = time.time()
    for worker in workers:
        worker.start()
    first, moments, early, due, again = [sum(lists, []) for lists in zip(*(answers.get() for _ in workers))]
    for worker in workers:
        worker.join()
    granted = sum(status == "ok" for status, _, _ in first)
    # A peek that was late by the machine's fault says nothing of the moment before; one that came at its moment or later must do.
    in_time = [status for (status, end), moment in zip(early, moments) if end < moment]
    good_again = sum(status == "ok" for status, _, _ in again)
    print("1..5")
    results = [
        report(1, f"{calls} calls at once on room for {room} get {room} grants", granted == room,
               f"{granted} grants, {len(moments)} refusals"),
        report(2, "every refusal says when", all(wait is not None and 0 < wait <= 61000 for status, wait, _ in first if status != "ok"),
               f"they agree on the moment within {1000 * (max(moments) - min(moments)):.1f} ms"),
        report(3, "a second before that moment nothing is there", len(in_time) >= 0.9 * len(early) and set(in_time) == {"limited"},
               f"{len(in_time)} of {len(early)} looked in time"),
        report(4, "at that moment it is", all(status == "ok" for status, _ in due), f"{len(due)} looked"),
        report(5, f"and {calls} calls get {room} grants again", good_again == room, f"{good_again} grants"),
    ]
    print(f"# {time.time() - begin:.0f} s")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
