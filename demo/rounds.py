"""rounds.py - lets the clients call the simulated providers through keypool, then for comparison without; reports.

Its argument is the moment when the original's past was loaded, in seconds since 1970.
"""

import asyncio
import contextlib
import functools
import json
import multiprocessing
import os
import pathlib
import signal
import sys
import tempfile
import time

import psycopg2

import provider_simulator
import report
from clients import TRAFFIC, Client, KeysInTurn, Keypool, UnixConnection
from ledger import Ledger, Selection

SECONDS, SECONDS_WITHOUT = 25, 15
PROGRESS_EVERY = 5      # seconds
PROCESSES = multiprocessing.get_context("fork")
ACCOUNTS = pathlib.Path(__file__).with_name("accounts.json")

CARRIED = "SELECT key_id, model, tokens FROM original.carried"
TOTALS = "SELECT sum(total_requests)::bigint, sum(total_tokens)::bigint FROM keypool_list_keys()"
QUOTAS = "SELECT name, total_requests FROM keypool_list_quotas()"
BAD_KEYS = "SELECT id::text, provider_id, key_label, account FROM keypool_list_keys() WHERE priority < 0"
RESTING = "SELECT key_label FROM keypool_list_keys() WHERE breaker <> 'closed'"


def query(statement):
    with contextlib.closing(psycopg2.connect("")) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def as_child():
    """The parent hears the signals, and ends its children."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def simulate(*arguments):
    as_child()
    asyncio.run(provider_simulator.serve(*arguments))


@contextlib.contextmanager
def simulator(accounts, loaded_at):
    """The path of its socket. `loaded_at`: when the original's past ended."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/providers"
        process = PROCESSES.Process(target=simulate, args=(path, accounts, loaded_at), daemon=True)
        process.start()
        while process.is_alive() and not os.path.exists(path):
            time.sleep(0.05)
        yield path
        process.terminate()


def books(path):
    connection = UnixConnection(path)
    connection.request("GET", "/books")
    return json.loads(connection.getresponse().read())


def client_process(number, provider, gateway, path, accounts, begin, end):
    return Client(number, provider, gateway(provider), path, accounts).work(begin, end)


def bad_keys():
    """Those that nobody has told keypool of: one that is not accepted any more, and those of an account without credit."""
    return [{"key_id": key_id, "provider": provider, "secret": f"sk-demo-{label}", "account": account, "disabled": False,
             "bad": 401 if label == "revoked" else 402, "sealed_with_lost_key": False, "cooling_seconds": None, "past": []}
            for key_id, provider, label, account in query(BAD_KEYS)]


def play(gateway, accounts, loaded_at, seconds):
    """One round: the clients' logs and the simulator's books. `gateway` makes what a client asks for keys."""
    crowd = [provider for provider, traffic in TRAFFIC.items() for _ in range(traffic.clients)]
    with simulator(accounts, loaded_at) as path, PROCESSES.Pool(len(crowd), as_child) as pool:
        begin = time.time() + 1
        logs = pool.starmap_async(client_process, [(number, provider, gateway, path, accounts, begin, begin + seconds)
                                                   for number, provider in enumerate(crowd)], chunksize=1)
        for second in range(PROGRESS_EVERY, seconds + 1, PROGRESS_EVERY):
            logs.wait(begin + second - time.time())
            report.print_progress(second, seconds, books(path)["counts"])
        return logs.get(), books(path)


def totals():
    """What keypool has counted: requests and tokens of all keys, and requests of each quota."""
    return query(TOTALS)[0], dict(query(QUOTAS))


def main():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("the demo was stopped"))
    accounts = json.loads(ACCOUNTS.read_text(encoding="utf-8"))["accounts"] + bad_keys()
    loaded_at, now = float(sys.argv[1]), time.time()
    carried = [Selection("", model, tokens, 0, key_id=key_id, replied=now, settling=now, settled=now)
               for key_id, model, tokens in query(CARRIED)]

    print(f"\n== The clients call the simulated providers through keypool for {SECONDS} s")
    before = totals()
    logs, books_with = play(Keypool, accounts, loaded_at, SECONDS)
    after, resting = totals(), [label for label, in query(RESTING)]
    print(f"\n== For comparison, {SECONDS_WITHOUT} s without keypool: each client takes its provider's keys in turn")
    logs_without, books_without = play(functools.partial(KeysInTurn, accounts), accounts, time.time(), SECONDS_WITHOUT)

    ledger = Ledger(accounts, loaded_at, carried + [call for log in logs for call in log.selections])
    report.print_providers(logs, logs_without)
    report.print_limits(books_with, books_without)
    claims = report.claims(logs, logs_without, books_with, before, after, resting, ledger)
    return 0 if report.print_claims(claims) else 1


if __name__ == "__main__":
    sys.exit(main())
