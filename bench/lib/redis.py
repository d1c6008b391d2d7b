# redis.py - a throw-away Redis with the same promises, by Lua scripts, and its load.
#
# Debian's server: Redis as a service would run it, with an append-only file that goes to the disk every second, as keypool does with
# synchronous_commit off. One Unix socket, no TCP. Secrets are plain text, which favours it.
import os
import re
import subprocess
import tempfile
import time

from postgres import BENCH, Failed, run

# The package redis-tools has the server's program under this name; the package redis-server would also start a service.
PROGRAM = "/usr/bin/redis-check-rdb"
TOKENS, REAL_TOKENS = 10, 8


class Redis:
    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.socket = f"{self.folder.name}/socket"
        settings = ["--port", "0", "--unixsocket", self.socket, "--dir", self.folder.name, "--appendonly", "yes",
                    "--appendfsync", "everysec", "--logfile", f"{self.folder.name}/log"]
        self.server = subprocess.Popen(["redis-server"] + settings, executable=PROGRAM, stdout=subprocess.DEVNULL)
        for _ in range(100):
            if os.path.exists(self.socket):
                break
            time.sleep(0.1)
        self.scripts = {name: self.load_script(name) for name in ("select", "settle")}
        self.client = f"{self.folder.name}/load"
        run(["g++", "-std=c++20", "-O2", "-pthread", "-o", self.client, f"{BENCH}/redis/load.cpp"])
        return self

    def __exit__(self, *_):
        self.server.terminate()
        self.server.wait()
        self.folder.cleanup()

    def ask(self, *words, **options):
        return run(["redis-cli", "-e", "-s", self.socket, *words], **options).strip()

    def load_script(self, name):
        source = ""
        for part in ("window", name):
            with open(f"{BENCH}/redis/{part}.lua") as file:
                source += file.read()
        return self.ask("-x", "SCRIPT", "LOAD", input=source)

    def make_pool(self, provider, keys):
        with open(f"{BENCH}/redis/load.lua") as file:
            self.ask("EVAL", file.read(), "1", f"ready:{provider}", provider, str(keys))

    # Starts a measurement, and ends it: every call must have been answered, and none with an error.
    def begin(self):
        self.ask("CONFIG", "RESETSTAT")

    def end(self):
        failed = self.ask("INFO", "errorstats").splitlines()[1:]
        calls = re.search(r"cmdstat_evalsha:calls=(\d+),.*rejected_calls=0,failed_calls=0", self.ask("INFO", "commandstats"))
        if failed or calls is None:
            raise Failed(f"Redis answered with errors: {failed}")
        return int(calls[1])

    def benchmark(self, provider, clients, requests):
        self.begin()
        out = run(["redis-benchmark", "-s", self.socket, "-c", str(clients), "--threads", "2", "-n", str(requests), "--csv",
                   "EVALSHA", self.scripts["select"], "2", f"ready:{provider}", f"parked:{provider}", str(TOKENS)])
        if self.end() < requests:
            raise Failed("redis-benchmark made fewer calls than it should")
        return float(out.splitlines()[1].split('","')[1])

    # Selections per second. redis-benchmark takes a number of calls, not a time: a short run says how many.
    def select(self, provider, clients, seconds):
        early = self.benchmark(provider, clients, 10000)
        return self.benchmark(provider, clients, int(early * seconds))

    # Cycles of select and settle per second.
    def cycle(self, provider, clients, seconds):
        self.begin()
        out = run([self.client, self.socket, str(clients), "2", str(seconds), self.scripts["select"], self.scripts["settle"], provider,
                   str(TOKENS), str(REAL_TOKENS)])
        self.end()
        return float(out)
