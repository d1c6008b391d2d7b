#!/usr/bin/python3
"""clients.py - many client processes that call providers through keypool, then the report.

Each client is a process with its own connection to PostgreSQL and to the provider, as the workers of
a gateway are. Client.serve is the loop that an application would write.
"""

import argparse
import http.client
import json
import math
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from dataclasses import dataclass, field

import psycopg2

import report
from ledger import Refusal, Use

PARENT = os.getpid()
EMPTY_SHARE = 0.2       # of the selects are preceded by an empty statement, to compare with
PROCESSES = multiprocessing.get_context("fork")


@dataclass
class Traffic:
    """What the users of a provider ask for. They come at random (Poisson), in a slow wave of +-30 %."""
    share: int              # of the clients
    per_second: float       # with all clients together
    prompt: int             # median tokens, log-normal
    max_tokens: int


TRAFFIC = {
    "openai": Traffic(24, 50, 180, 400),
    "anthropic": Traffic(18, 26, 700, 900),
    "gemini": Traffic(8, 20, 150, 350),
    "deepseek": Traffic(8, 8, 300, 600),
    "mistral": Traffic(6, 10, 160, 300),
}


@dataclass
class Log:
    """What one client did; sent to the parent at the end."""
    provider: str
    asked: int = 0
    uses: list = field(default_factory=list)
    refusals: list = field(default_factory=list)
    select_us: list = field(default_factory=list)
    empty_us: list = field(default_factory=list)    # an empty statement, for comparison
    tokens: int = 0
    served: int = 0
    too_many: int = 0           # 429s met
    dropped: int = 0            # connections that the provider closed; the reservation was released
    wrong_key: int = 0          # 401, or an account that is not the granted key's
    errors: list = field(default_factory=list)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("provider", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Keypool:
    """The statements that a client needs, prepared once."""

    STATEMENTS = """
        PREPARE empty AS SELECT 1;
        PREPARE try_select(text, bigint) AS SELECT * FROM keypool_try_select($1, $2);
        PREPARE record(uuid, bigint, bigint) AS SELECT keypool_record($1, $2, $3);
        PREPARE release(uuid, bigint) AS SELECT keypool_release($1, $2);
        PREPARE mark_429(uuid, integer, bigint) AS SELECT keypool_mark_429($1, $2, $3);
    """

    def __init__(self):
        self.connection = psycopg2.connect("", application_name="keypool demo client")
        self.connection.autocommit = True
        self.cursor = self.connection.cursor()
        self.cursor.execute(self.STATEMENTS)

    def fetch(self, statement, arguments=()):
        """The row, and the microseconds that it took."""
        start = time.perf_counter_ns()
        self.cursor.execute(statement, arguments)
        row = self.cursor.fetchone()
        return row, (time.perf_counter_ns() - start) / 1000

    def empty(self):
        return self.fetch("EXECUTE empty")[1]

    def try_select(self, provider, tokens):
        row, microseconds = self.fetch("EXECUTE try_select(%s, %s)", (provider, tokens))
        return dict(zip([column.name for column in self.cursor.description], row)), microseconds

    def record(self, grant, tokens):
        self.cursor.execute("EXECUTE record(%s, %s, %s)", (grant["key_id"], tokens, grant["lease"]))

    def release(self, grant):
        self.cursor.execute("EXECUTE release(%s, %s)", (grant["key_id"], grant["lease"]))

    def mark_429(self, grant, seconds):
        self.cursor.execute("EXECUTE mark_429(%s, %s, %s)", (grant["key_id"], seconds, grant["lease"]))


class Client:
    def __init__(self, number, provider, traffic, socket_path, board):
        self.number, self.provider, self.traffic, self.board = number, provider, traffic, board
        self.random = random.Random(f"{provider} {number}")
        self.keypool = Keypool()
        self.http = UnixConnection(socket_path)
        self.log = Log(provider)
        self.end = 0.0

    def work(self, begin, end):
        """Serve the requests as they come in; one that has to wait makes the next ones wait."""
        self.end = end
        for moment, prompt in self.requests(begin):
            self.sleep_until(moment)
            self.log.asked += 1
            self.serve(prompt)
            self.board.show(self.number, self.log)

    def requests(self, begin):
        """(moment, prompt tokens) of the requests that reach this client before the end."""
        mean_gap = self.traffic.share / self.traffic.per_second
        moment, wave = begin, self.random.uniform(0, 2 * math.pi)
        while True:
            busy = 1 + 0.3 * math.sin(wave + (moment - begin) / 5)
            moment += self.random.expovariate(busy / mean_gap)
            if moment >= self.end:
                return
            yield moment, round(self.random.lognormvariate(math.log(self.traffic.prompt), 0.5))

    def serve(self, prompt):
        """One request of a user: a key from keypool, the call, and the account of what it took."""
        estimate = prompt + self.traffic.max_tokens
        while time.time() < self.end:
            grant, use = self.select(estimate)
            if grant["status"] != "ok":
                if grant["retry_after_ms"] is None:
                    return
                self.wait(grant["retry_after_ms"] / 1000)
                continue
            try:
                status, retry_after, answer = self.call(grant["key_value"], prompt)
            except (ConnectionError, http.client.HTTPException):
                self.http.close()
                self.settle(use, self.keypool.release, grant)
                self.log.dropped += 1
                continue
            if status != 429:
                return self.served(use, grant, status, answer)
            self.log.too_many += 1
            use.told_to_wait = retry_after
            self.settle(use, self.keypool.mark_429, grant, retry_after)

    def select(self, estimate):
        if self.random.random() < EMPTY_SHARE:
            self.log.empty_us.append(self.keypool.empty())
        call, use = time.time(), None
        grant, microseconds = self.keypool.try_select(self.provider, estimate)
        reply = time.time()
        self.log.select_us.append(microseconds)
        if grant["status"] == "ok":
            use = Use(str(grant["key_id"]), call, reply, estimate)
            self.log.uses.append(use)
        else:
            self.log.refusals.append(
                Refusal(self.provider, call, reply, estimate, grant["status"], grant["retry_after_ms"]))
        return grant, use

    def call(self, secret, prompt):
        body = json.dumps({"model": "demo", "prompt_tokens": prompt, "max_tokens": self.traffic.max_tokens})
        self.http.request("POST", f"/v1/{self.provider}/chat", body, {"Authorization": f"Bearer {secret}"})
        response = self.http.getresponse()
        return response.status, int(response.headers.get("Retry-After", 0)), json.loads(response.read())

    def served(self, use, grant, status, answer):
        tokens = answer["usage"]["total_tokens"] if status == 200 else 0
        use.tokens, use.served = tokens, True
        self.settle(use, self.keypool.record, grant, tokens)
        if status == 200 and answer["account"] == use.key_id:
            self.log.served += 1
            self.log.tokens += tokens
        else:
            self.log.wrong_key += 1

    @staticmethod
    def settle(use, statement, *arguments):
        use.settle_call = time.time()
        statement(*arguments)
        use.settle_reply = time.time()

    def wait(self, seconds):
        self.board.show(self.number, self.log, waiting=True)
        self.sleep_until(min(time.time() + seconds, self.end))
        self.board.show(self.number, self.log)

    @staticmethod
    def sleep_until(moment):
        while (left := moment - time.time()) > 0:
            if os.getppid() != PARENT:
                sys.exit("the demo is gone")
            time.sleep(min(left, 1.0))


class Board:
    """Numbers that the clients write and the parent reads while they run; one row each, so no lock."""

    COLUMNS = 4

    def __init__(self, clients):
        self.cells = PROCESSES.RawArray("q", clients * self.COLUMNS)

    def show(self, number, log, waiting=False):
        row = number * self.COLUMNS
        self.cells[row:row + self.COLUMNS] = [log.served, log.too_many, int(waiting), len(log.errors)]

    def sums(self, numbers):
        rows = [self.cells[n * self.COLUMNS:(n + 1) * self.COLUMNS] for n in numbers]
        return [sum(column) for column in zip(*rows)]


def client_process(number, provider, traffic, options, board, barrier, times, pipe):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    client = Client(number, provider, traffic, options.socket, board)
    barrier.wait(30)
    barrier.wait(30)    # between the two the parent sets the times
    try:
        client.work(*times)
    except (psycopg2.Error, OSError, KeyError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        client.log.errors.append(f"{provider}: {type(error).__name__}: {first_line}")
        board.show(number, client.log)
    pipe.send(client.log)


def assign(clients):
    """The provider of each client, by the shares of the traffic."""
    shares = sum(traffic.share for traffic in TRAFFIC.values())
    counts = {p: max(1, round(clients * traffic.share / shares)) for p, traffic in TRAFFIC.items()}
    return [provider for provider, count in counts.items() for _ in range(count)]


class Crowd:
    """All clients: started together, watched while they work, asked for their logs."""

    def __init__(self, options):
        self.providers = assign(options.clients)
        self.board = Board(len(self.providers))
        self.barrier = PROCESSES.Barrier(len(self.providers) + 1)
        self.times = PROCESSES.RawArray("d", 2)
        self.pipes = []
        for number, provider in enumerate(self.providers):
            traffic = Traffic(**vars(TRAFFIC[provider]))
            traffic.share = self.providers.count(provider)
            receiver, sender = PROCESSES.Pipe(duplex=False)
            arguments = (number, provider, traffic, options, self.board, self.barrier, self.times, sender)
            PROCESSES.Process(target=client_process, args=arguments, daemon=True).start()
            sender.close()
            self.pipes.append(receiver)

    def start(self, seconds):
        self.barrier.wait(30)
        begin = time.time() + 0.2
        self.times[:] = [begin, begin + seconds]
        self.barrier.wait(30)
        return self.times[:]

    def watch(self, begin, end):
        line = report.ProgressLine(begin, end)
        last = end - 0.05       # a moment before the clients go home
        while (now := time.time()) < last:
            time.sleep(min(last, max(begin, now) + line.every) - now)
            line.print(*self.state())
        line.close()

    def state(self):
        numbers = {p: [n for n, other in enumerate(self.providers) if other == p] for p in TRAFFIC}
        served = {p: self.board.sums(n)[0] for p, n in numbers.items()}
        return served, self.board.sums(range(len(self.providers)))

    def logs(self):
        """A log per client; calls that were on their way at the end are waited for."""
        return [self.log(*pair) for pair in zip(self.pipes, self.providers)]

    @staticmethod
    def log(pipe, provider):
        try:
            return pipe.recv()
        except EOFError:
            return Log(provider, errors=[f"{provider}: a client ended without a word"])


def simulator_statistics(path):
    connection = UnixConnection(path)
    connection.request("GET", "/statistics")
    return json.loads(connection.getresponse().read())


def parse_options():
    parser = argparse.ArgumentParser(description="Call simulated providers through keypool.")
    parser.add_argument("--socket", required=True, help="the simulator's")
    parser.add_argument("--accounts", required=True)
    parser.add_argument("--imported-at", type=float, required=True, help="when keypool_import was done (epoch)")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clients", type=int, default=64)
    return parser.parse_args()


def leave(*_):
    """End in order, so that the clients are ended, too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def main():
    signal.signal(signal.SIGTERM, leave)
    options = parse_options()
    books = report.Books(options.accounts, options.imported_at)
    crowd = Crowd(options)
    begin, end = crowd.start(options.seconds)
    crowd.watch(begin, end)
    result = report.Result(books, crowd.logs(), simulator_statistics(options.socket), begin, end)
    return 0 if result.print() else 1


if __name__ == "__main__":
    sys.exit(main())
