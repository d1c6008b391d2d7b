#!/usr/bin/python3
# long_calls.py - clients whose calls take long, and who go on with them on whichever server is the primary.
#
#   long_calls.py CLIENTS SECONDS HOLD PROVIDER...
#
# PGHOST and PGPORT name all servers. So many clients of each provider begin one after the other within the first half of SECONDS,
# select whenever they have no call, hold each call for HOLD seconds and record it. Those of providers "logged..." have
# keypool.log_reservations on. After SECONDS no call begins. Prints `from,to,key,provider,settled,counted` for each selection, in
# seconds since 1970: it happened between the first two, and was recorded after the third; `counted` is what keypool_record said.
import csv
import sys
import threading
import time

import psycopg2

PATIENCE = 60   # seconds that there may be no primary
PAUSE = 0.3     # seconds until a client that was refused asks again


class Client(threading.Thread):
    def __init__(self, provider, begins, ends, hold):
        super().__init__()
        self.provider, self.begins, self.ends, self.hold = provider, begins, ends, hold
        self.cursor = None
        self.calls = []
        self.failure = None

    def connect(self):
        logs = "on" if self.provider.startswith("logged") else "off"
        connection = psycopg2.connect(dbname="postgres", target_session_attrs="read-write", connect_timeout=5,
                                      options=f"-c keypool.log_reservations={logs}")
        connection.autocommit = True
        self.cursor = connection.cursor()

    # One row, or None where the server has gone away; whether it had done something by then is not known.
    def ask(self, sql, *arguments):
        try:
            if self.cursor is None:
                self.connect()
            self.cursor.execute(sql, arguments)
            return self.cursor.fetchone()
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            self.cursor = None
            return None

    def call(self):
        began = time.time()
        row = self.ask("SELECT status, key_id::text, lease FROM keypool_try_select(%s, 10)", self.provider)
        selected = time.time()
        if row is None or row[0] != "ok":
            time.sleep(PAUSE)
            return
        time.sleep(self.hold)
        settled = time.time()
        counted = None
        while counted is None and time.time() < settled + PATIENCE:
            counted = self.ask("SELECT keypool_record(%s, 7, %s)", *row[1:])
            if counted is None:
                time.sleep(PAUSE)
        self.calls.append((began, selected, row[1], self.provider, settled, counted and counted[0]))

    def run(self):
        time.sleep(max(self.begins - time.time(), 0))
        try:
            while time.time() < self.ends:
                self.call()
        except psycopg2.Error as error:
            self.failure = error


def main():
    count, seconds, hold = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    now = time.time()
    clients = [Client(provider, now + seconds / 2 * i / count, now + seconds, hold)
               for i in range(count) for provider in sys.argv[4:]]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    csv.writer(sys.stdout).writerows(call for client in clients for call in client.calls)
    failures = [client.failure for client in clients if client.failure]
    if failures:
        sys.exit(f"long_calls.py: {len(failures)} clients failed, the first with: {failures[0]}")


if __name__ == "__main__":
    main()
