# many.py - the case of many more providers than a session can know well.
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time

from postgres import PROGRESS, Failed, check, make_database, pgbench_command, script_options, sql
from results import ROUNDS, SECONDS, compared

PROVIDERS = int(os.environ.get("PROVIDERS", 100000))
CLIENTS = 8
LONGEST = 7200  # seconds; the load is stopped before


def make_many():
    if sql("SELECT count(*) FROM pg_database WHERE datname = 'many'", "postgres") != ["0"]:
        return
    make_database("many", "keypool")
    for first in range(1, PROVIDERS + 1, 10000):  # keeps the queue of the triggers short
        sql(f"CALL make_providers({min(10000, PROVIDERS - first + 1)}, 3, {first})", "many")
    sql("VACUUM ANALYZE keypool.provider_keys, keypool.key_meters", "many")
    sql("CHECKPOINT", "many")


# A load that goes on while something else comes and goes beside it: its throughput, second by second.
class LongLoad:
    def __init__(self, script, clients, database, **variables):
        self.folder = tempfile.TemporaryDirectory()
        options = script_options(script, variables, self.folder.name) + ["-P", "1", "-T", str(LONGEST)]
        self.command = pgbench_command(clients, options, database)
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.rates, self.other = [], []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stderr:
            found = PROGRESS.match(line)
            if found:
                self.rates.append(float(found[2]))
            else:
                self.other.append(line)

    # Transactions per second over the next seconds. The second that is under way does not count.
    def measure(self, seconds):
        first = len(self.rates) + 1
        while len(self.rates) < first + seconds:
            if self.process.poll() is not None or any("error:" in line for line in self.other):
                raise Failed(f"{' '.join(self.command)}\n{''.join(self.other)[-2000:]}")
            time.sleep(0.01)
        return statistics.mean(self.rates[first:first + seconds])

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.reader.join()
        self.folder.cleanup()


# Ten changes of the configuration a second, by a session of its own.
class Changes:
    def __init__(self, seconds, database, **variables):
        self.folder, self.seconds = tempfile.TemporaryDirectory(), seconds
        options = script_options("change", variables, self.folder.name) + ["-R", "10", "-T", str(seconds)]
        self.command = pgbench_command(1, options, database)
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    # Waits for the end; answers how many there were a second.
    def finish(self):
        out, err = self.process.communicate()
        check(self.command, self.process.returncode, out, err)
        self.folder.cleanup()
        return int(re.search(r"number of transactions actually processed: (\d+)", out)[1]) / self.seconds


# All sessions stay for the whole case, so that none is fresh. First they have time to call for every provider; then quiet times and
# times with changes take turns. After each change the sessions have time to recover, so that a quiet time is one.
def many_providers(case):
    make_many()
    load = LongLoad("select-any", CLIENTS, "many", providers=PROVIDERS)
    values, changes = {"quiet": [], "changed": []}, []
    try:
        load.measure(max(3, PROVIDERS * CLIENTS // 20000))
        for _ in range(ROUNDS):
            values["quiet"].append(load.measure(SECONDS))
            writer = Changes(SECONDS + 3, "many", providers=PROVIDERS)
            values["changed"].append(load.measure(SECONDS))
            changes.append(writer.finish())
            load.measure(SECONDS)
    finally:
        load.stop()
    made = statistics.mean(changes)
    if made < 5:
        raise Failed(f"only {made:.1f} changes a second could be made")
    compared(case, f"{PROVIDERS:,} providers of 3 keys, 10 changes a second, against none", values, "changed", "quiet", ("at least", 0.80),
             f"; {made:.1f} changes/s")
