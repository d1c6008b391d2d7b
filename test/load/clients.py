#!/usr/bin/python3
# clients.py - many client processes call keypool as gateways do, and log every call with its times.
#
#   clients.py PLAN LOG CLIENTS SECONDS
#
# PLAN is a JSON file: {"pools": {name: {"tokens": estimate or 0, "release": share, "limited": share, "die": share, "weight": n,
# "hold": seconds}}}. A grant is held for `hold` seconds on average (0.01).
# `release` is the share of grants that are given back, `limited` of those that the provider answers with 429, `die` of those after
# which the client is killed with signal 9 before it can settle; the next client takes its place.
# LOG gets one JSON object a line. Times are seconds since 1970 of the server's clock, read in the statement before and after
# the call (`from`, `to`); for a client that is not told, there is no line.
import json
import multiprocessing
import os
import random
import signal
import sys
import time

import psycopg2

LONGEST_WAIT = 1.5  # seconds until a refused client asks again at the latest, so that nobody's forecast is needed

TIMED = """SELECT {}, extract(epoch FROM c.at)::float8, extract(epoch FROM clock_timestamp())::float8
           FROM (SELECT clock_timestamp() AS at) c CROSS JOIN LATERAL {} k"""
COLUMNS = "k.key_id, k.lease, k.status, k.retry_after_ms"


class Client:
    def __init__(self, plan, log, until, seed):
        self.plan, self.log, self.until = plan, log, until
        self.random = random.Random(seed)
        self.connection = psycopg2.connect(dbname="postgres")
        self.connection.autocommit = True
        self.cursor = self.connection.cursor()

    def call(self, function, arguments, columns="k.*"):
        self.cursor.execute(TIMED.format(columns, function), arguments)
        return self.cursor.fetchone()

    def write(self, **line):
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()

    def settle(self, pool, key, lease, grant, estimate):
        try:
            self.try_to_settle(pool, key, lease, grant, estimate)
        except psycopg2.Error as error:
            if error.pgcode != "KP404":  # the key was deleted meanwhile
                raise

    def try_to_settle(self, pool, key, lease, grant, estimate):
        habits = self.plan["pools"][pool]
        chance = self.random.random()
        if chance < habits["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        chance -= habits["die"]
        if chance < habits["release"]:
            *_, start, end = self.call("keypool_release(%s, %s)", (key, lease))
            self.write(do="release", pool=pool, key=key, grant=grant, **{"from": start, "to": end})
        elif chance < habits["release"] + habits["limited"]:
            until, start, end = self.call("extract(epoch FROM keypool_mark_429(%s, 2, %s))", (key, lease))
            self.write(do="limited", pool=pool, key=key, grant=grant, until=float(until), **{"from": start, "to": end})
        else:
            used = self.random.randint(estimate // 2, estimate)
            *_, start, end = self.call("keypool_record(%s, %s, %s)", (key, used, lease))
            self.write(do="record", pool=pool, key=key, grant=grant, tokens=used, **{"from": start, "to": end})

    def work(self):
        pools = list(self.plan["pools"])
        weights = [self.plan["pools"][pool].get("weight", 1) for pool in pools]
        number = 0
        while time.time() < self.until:
            pool = self.random.choices(pools, weights)[0]
            most = self.plan["pools"][pool]["tokens"]
            estimate = self.random.randint(most // 2, most)
            key, lease, status, retry, start, end = self.call("keypool_try_select(%s, %s)", (pool, estimate), COLUMNS)
            number += 1
            grant = f"{os.getpid()}.{number}"
            self.write(do="select", pool=pool, status=status, key=key, grant=grant, tokens=estimate, retry=retry,
                       **{"from": start, "to": end})
            if status == "ok":
                time.sleep(self.random.expovariate(1 / self.plan["pools"][pool].get("hold", 0.01)))
                self.settle(pool, key, lease, grant, estimate)
            else:
                time.sleep(min((retry or 1000) / 1000, LONGEST_WAIT) * self.random.uniform(0.05, 1))


def run_client(plan, path, until, seed):
    with open(path, "a", encoding="ascii") as log:
        Client(plan, log, until, seed).work()


# Keeps one client running: whoever is killed is replaced.
def keep_running(plan, path, until, seed):
    deaths = 0
    while time.time() < until:
        client = multiprocessing.Process(target=run_client, args=(plan, f"{path}.{seed}", until, f"{seed}.{deaths}"))
        client.start()
        client.join()
        if client.exitcode not in (0, -signal.SIGKILL):
            sys.exit(f"a client ended with {client.exitcode}")
        deaths += 1
    return deaths - 1


def main():
    plan_path, log_path, clients, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    with open(plan_path, encoding="ascii") as file:
        plan = json.load(file)
    until = time.time() + seconds
    keepers = [multiprocessing.Process(target=keep_running, args=(plan, log_path, until, seed)) for seed in range(clients)]
    for keeper in keepers:
        keeper.start()
    for keeper in keepers:
        keeper.join()
    sys.exit(max(keeper.exitcode for keeper in keepers))


if __name__ == "__main__":
    main()
