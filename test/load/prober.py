#!/usr/bin/python3
# prober.py - sessions on a key whose breaker opens, comes due and is probed, round after round, by a clock that stands still.
#
#   prober.py PROVIDER SESSIONS ROUNDS
#
# In each round all sessions select at once, at the moment at which the breaker comes due; exactly one may be given the key. It reports
# a failure (or, in the round in which the time is at its bound, a success: then all sessions must be given the key at their next call,
# and the first failure opens the breaker again). Prints one JSON object: {"rounds": n, "probes": calls that were given a key while the
# breaker was half-open, "wrong": [what was not as it should be], "longest": seconds of the longest opening}.
import concurrent.futures
import json
import sys

import psycopg2

FIRST, LONGEST = 600, 86400  # seconds, of a 401
START = 1795708800


class Session:
    def __init__(self):
        self.connection = psycopg2.connect(dbname="postgres")
        self.connection.autocommit = True
        self.cursor = self.connection.cursor()

    def at(self, clock):
        self.cursor.execute("SELECT set_config('keypool.test_now', to_timestamp(%s)::text, false)", (clock,))

    def select(self, provider):
        self.cursor.execute("SELECT key_id::text, lease, status, retry_after_ms FROM keypool_try_select(%s)", (provider,))
        return self.cursor.fetchone()

    def report(self, given, status):
        self.cursor.execute("SELECT class, retry_after_ms, settled FROM keypool_report(%s, %s, %s)", (*given[:2], status))
        return self.cursor.fetchone()


def main():
    provider, count, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sessions = [Session() for _ in range(count)]
    wrong, probes, longest, clock, seconds = [], 0, 0, START, FIRST
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        def all_select():
            for session in sessions:
                session.at(clock)
            return [given for given in pool.map(lambda session: session.select(provider), sessions) if given[2] == "ok"]

        def fail(given):
            answer = sessions[0].report(given, 401)
            if answer != ("auth", seconds * 1000, True):
                wrong.append(f"at {clock - START}: {answer}, not {seconds} s")

        sessions[0].at(clock)
        fail(sessions[0].select(provider))
        for _ in range(rounds):
            clock += seconds - 1
            if all_select():
                wrong.append(f"at {clock - START}: given before it is due")
            clock += 1
            given = all_select()
            probes += len(given)
            if len(given) != 1:
                wrong.append(f"at {clock - START}: {len(given)} probes")
                break
            longest = max(longest, seconds)
            if seconds < LONGEST:
                seconds = min(2 * seconds, LONGEST)
                fail(given[0])
                continue
            sessions[0].report(given[0], 200)
            if len(all_select()) != count:
                wrong.append(f"at {clock - START}: it is not closed to all")
            clock, seconds = clock + 1, FIRST
            sessions[0].at(clock)
            fail(sessions[0].select(provider))
    print(json.dumps({"rounds": rounds, "probes": probes, "wrong": wrong, "longest": longest}))


if __name__ == "__main__":
    main()
