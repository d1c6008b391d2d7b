#!/usr/bin/python3
# recorder.py - client processes that select and record through every disturbance, and count what was acknowledged to them.
#
#   recorder.py PROVIDER TOKENS CLIENTS [SQLSTATE...]
#
# Goes on until it is told to stop, by SIGTERM. Every record is of so many tokens. Lost connections are made anew; statements that
# fail with one of the SQLSTATEs are expected. Prints one JSON object: {"acknowledged": records that were, "unknown": those whose
# answer was lost or that failed, "failures": {SQLSTATE: n}}.
import collections
import json
import multiprocessing
import signal
import sys
import time

import psycopg2

PATIENCE = 60  # seconds that a server may be away


class Recorder:
    def __init__(self, provider, tokens, stopped, expected):
        self.provider, self.tokens, self.stopped, self.expected = provider, tokens, stopped, expected
        self.acknowledged = self.unknown = 0
        self.failures = collections.Counter()

    def connect(self):
        give_up = time.time() + PATIENCE
        while True:
            try:
                connection = psycopg2.connect(dbname="postgres", application_name="recorder")
                connection.autocommit = True
                return connection.cursor()
            except psycopg2.OperationalError:
                if time.time() > give_up:
                    raise
                time.sleep(0.02)

    # Whether the connection is still there after a failure.
    def survives(self, error):
        self.failures[error.pgcode or "connection lost"] += 1
        if error.pgcode is None or error.pgcode in ("57P01", "57P02", "57P03"):
            return False
        if error.pgcode not in self.expected:
            raise error
        return True

    def serve(self, cursor):
        while not self.stopped.is_set():
            recording = False
            try:
                cursor.execute("SELECT key_id, lease FROM keypool_select(%s, %s)", (self.provider, self.tokens))
                key, lease = cursor.fetchone()
                recording = True
                cursor.execute("SELECT keypool_record(%s, %s, %s)", (key, self.tokens, lease))
                self.acknowledged += 1
            except psycopg2.Error as error:
                self.unknown += recording
                if not self.survives(error):
                    return

    def run(self, answers):
        while not self.stopped.is_set():
            self.serve(self.connect())
        answers.put((self.acknowledged, self.unknown, dict(self.failures)))


def main():
    provider, tokens, clients, *expected = sys.argv[1:]
    answers = multiprocessing.Queue()
    stopped = multiprocessing.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    workers = [multiprocessing.Process(target=Recorder(provider, int(tokens), stopped, expected).run, args=(answers,))
               for _ in range(int(clients))]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        if any(worker.exitcode not in (None, 0) for worker in workers):
            for worker in workers:
                worker.kill()
            sys.exit("a client failed")
        time.sleep(0.05)
    total = {"acknowledged": 0, "unknown": 0, "failures": collections.Counter()}
    for _ in workers:
        acknowledged, unknown, failures = answers.get()
        total["acknowledged"] += acknowledged
        total["unknown"] += unknown
        total["failures"].update(failures)
    print(json.dumps(total))


if __name__ == "__main__":
    main()
