# postgres.py - talks to the throw-away cluster: statements by psql, load by pgbench.
import contextlib
import glob
import os
import re
import statistics
import subprocess
import tempfile

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = subprocess.run([os.environ.get("PG_CONFIG", "pg_config"), "--bindir"], capture_output=True, text=True, check=True).stdout.strip()
WARM_UP = 1  # seconds at the start of each load that do not count: sessions load their pools then
PSQL = [f"{BIN}/psql", "-qXAt", "-v", "ON_ERROR_STOP=1"]


class Failed(Exception):
    pass


def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def sql(statements, database="bench"):
    return run(PSQL + ["-d", database], input=statements).split("\n")[:-1]


# Makes a database and runs a file of bench/sql in it.
def make_database(name, file, **variables):
    run(PSQL + ["-d", "postgres", "-c", f"CREATE DATABASE {name}"])
    given = [f"--set={variable}={value}" for variable, value in variables.items()]
    run(PSQL + given + ["-d", name, "-f", f"{BENCH}/sql/{file}.sql"])


# A session that stays, for what belongs to one server process.
class Session:
    def __init__(self, database="bench"):
        self.psql = subprocess.Popen(PSQL + ["-d", database], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = int(self.ask("SELECT pg_backend_pid()")[0])

    def ask(self, statement):
        self.psql.stdin.write(f"{statement};\nSELECT 'that is all';\n")
        self.psql.stdin.flush()
        lines = []
        for line in self.psql.stdout:
            if line == "that is all\n":
                return lines
            lines.append(line.rstrip("\n"))
        raise Failed(f"psql ended at: {statement}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.psql.stdin.close()
        self.psql.wait()


def environment(synchronous_commit):
    if synchronous_commit is None:
        return None
    return {**os.environ, "PGOPTIONS": f"-c synchronous_commit={synchronous_commit}"}


# One script of bench/scripts, or a list of (script, variables) that are drawn at random: pgbench has one set of variables for all, so
# what differs is written into copies.
def script_options(scripts, variables, folder):
    options = [f"-D{name}={value}" for name, value in variables.items()]
    if isinstance(scripts, str):
        scripts = [(scripts, {})]
    for number, (script, replaced) in enumerate(scripts):
        path = f"{BENCH}/scripts/{script}.sql"
        if replaced:
            with open(path) as source:
                text = source.read()
            for name, value in replaced.items():
                text = re.sub(rf":{name}\b", f"'{value}'", text)
            path = f"{folder}/{number}.sql"
            with open(path, "w") as copy:
                copy.write(text)
        options += ["-f", path]
    return options


def pgbench_command(clients, options, database="bench"):
    return [f"{BIN}/pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(2, clients))] + options + [database]


def postmaster():
    with open(sql("SHOW data_directory")[0] + "/postmaster.pid") as file:
        return int(file.readline())


# Whether the server's shared memory lies in huge pages.
def has_huge_pages():
    with open(f"/proc/{postmaster()}/maps") as file:
        return any("anon_hugepage" in line for line in file)


# One client and its server process take turns, so they share a processor while this lasts. On two, the time to wake an idle processor is
# several times that of a call, and it is the scheduler that decides how often it is spent.
@contextlib.contextmanager
def on_one_processor():
    processes = (0, postmaster())  # what they start inherits it
    before = os.sched_getaffinity(0)
    try:
        for process in processes:
            os.sched_setaffinity(process, {max(before)})
        yield
    finally:
        for process in processes:
            os.sched_setaffinity(process, before)


def processors_for(clients):
    return on_one_processor() if clients == 1 else contextlib.nullcontext()


# Runs pgbench, and refuses a figure if any call failed: a client that met an error ends, and pgbench with it.
def pgbench(scripts, clients, options, database="bench", synchronous_commit=None, **variables):
    with tempfile.TemporaryDirectory() as folder:
        command = pgbench_command(clients, script_options(scripts, variables, folder) + options, database)
        done = subprocess.run(command, capture_output=True, text=True, env=environment(synchronous_commit))
    return check(command, done.returncode, done.stdout, done.stderr)


def check(command, status, out, err):
    failed = re.search(r"number of failed transactions: (\d+)", out)
    if status != 0 or failed is None or failed[1] != "0" or "error:" in err:
        raise Failed(f"{' '.join(command)}\n{out[-2000:]}{err[-2000:]}")
    return out, err


PROGRESS = re.compile(r"progress: ([\d.]+) s, ([\d.]+) tps")


# Transactions per second, without the warm-up: what was done in all, less what was done until the first
# report of progress. One client runs on one processor.
def throughput(scripts, clients, seconds, **options):
    with processors_for(clients):
        out, err = pgbench(scripts, clients, ["-P", str(WARM_UP), "-T", str(WARM_UP + seconds)], **options)
    done = int(re.search(r"number of transactions actually processed: (\d+)", out)[1])
    rate = float(re.search(r"tps = ([\d.]+) \(without", out)[1])
    early = PROGRESS.search(err)
    if early is None:
        raise Failed(f"pgbench reported no progress:\n{err[-2000:]}")
    time, early_rate = float(early[1]), float(early[2])
    return (done - time * early_rate) / (done / rate - time)


# What pgbench logs of each call of a load: its script's number, and its latency in microseconds. Without the warm-up.
def logged(scripts, clients, seconds, **options):
    with tempfile.TemporaryDirectory() as folder:
        pgbench(scripts, clients, ["-T", str(WARM_UP + seconds), "-l", f"--log-prefix={folder}/log"], **options)
        calls = []
        for path in glob.glob(f"{folder}/log*"):
            with open(path) as log:
                for line in log:
                    _, _, latency, script, second, _ = map(int, line.split())
                    calls.append((second, script, latency))
    if not calls:
        raise Failed("pgbench logged no call")
    begin = min(calls)[0] + WARM_UP
    return [(script, latency) for second, script, latency in calls if second >= begin]


# Mean latencies in microseconds of several scripts, drawn at random in one run. pgbench cuts to whole ones.
def mean_latencies(scripts, clients, seconds, **options):
    calls = logged([(script, {}) for script in scripts], clients, seconds, **options)
    if {script for script, _ in calls} != set(range(len(scripts))):
        raise Failed("too short a run: some script was not called")
    return [statistics.fmean(latency for script, latency in calls if script == number) + 0.5 for number in range(len(scripts))]


# Latencies in microseconds at the given shares of all calls.
def percentiles(scripts, clients, seconds, shares, **options):
    with processors_for(clients):
        times = sorted(latency for _, latency in logged(scripts, clients, seconds, **options))
    return [times[min(int(len(times) * share), len(times) - 1)] for share in shares]
