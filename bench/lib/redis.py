# redis.py - a throw-away Redis with the same promises, by Lua scripts, and its load.
#
# Debian's server, as a service would run it: with an append-only file that goes to the disk every second, which is what keypool does with
# synchronous_commit off. No snapshots, no TCP. Secrets are plain text. Both favour it.
import os
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
        settings = ["--port", "0", "--unixsocket", self.socket, "--dir", self.folder.name, "--logfile", f"{self.folder.name}/log",
                    "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        self.server = subprocess.Popen(["redis-server"] + settings, executable=PROGRAM, stdout=subprocess.DEVNULL)
        try:
            self.prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.server.terminate()
        self.server.wait()
        self.folder.cleanup()

    def prepare(self):
        give_up = time.time() + 10
        while not os.path.exists(self.socket):
            if time.time() > give_up:
                raise Failed("Redis does not start")
            time.sleep(0.1)
        self.scripts = {name: self.load_script(name) for name in ("select", "settle")}
        self.client = f"{self.folder.name}/load"
        run(["g++", "-std=c++20", "-O2", "-pthread", "-o", self.client, f"{BENCH}/redis/load.cpp"])

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

    # Answers per second. Every call must have been answered, and none with an error.
    def load(self, provider, clients, seconds, settle):
        self.ask("CONFIG", "RESETSTAT")
        out = run([self.client, self.socket, str(clients), str(min(2, clients)), str(seconds), self.scripts["select"], settle, provider,
                   str(TOKENS), str(REAL_TOKENS)])
        failed = self.ask("INFO", "errorstats").splitlines()[1:]
        if failed:
            raise Failed(f"Redis answered with errors: {failed}")
        return float(out)

    def select(self, provider, clients, seconds):
        return self.load(provider, clients, seconds, "-")

    # Cycles of a selection and its record.
    def cycle(self, provider, clients, seconds):
        return self.load(provider, clients, seconds, self.scripts["settle"])
