"""clients.py - the clients: each is a process with its own connections, as the workers of a gateway are.

Client.serve is the loop that an application would write. It asks a gateway for a key: Keypool, or for comparison
KeysInTurn, which does what processes can do that know nothing of each other.
"""

import http.client
import json
import math
import random
import socket
import time
from typing import NamedTuple

import psycopg2

from ledger import Selection, is_on


class Traffic(NamedTuple):
    """What the users of a provider ask for. They come at random (Poisson), in a slow wave of +-30 %."""
    clients: int
    per_second: float       # with all clients together
    models: list            # each client uses one of them
    prompt: int             # median tokens, log-normal
    max_tokens: int


TRAFFIC = {
    "openai": Traffic(24, 50, ["gpt-5", "gpt-5-2025-08-07", "gpt-5-mini", "gpt-5-mini", "gpt-5-mini"], 180, 400),
    "anthropic": Traffic(16, 26, ["claude-opus-4-1", "claude-sonnet-4-5"], 700, 900),
    "gemini": Traffic(8, 20, ["gemini-2.5-flash", "gemini-2.5-pro"], 150, 350),
    "deepseek": Traffic(10, 14, ["deepseek-chat"], 300, 600),
    "mistral": Traffic(6, 10, ["mistral-small"], 160, 300),
}


class Keypool:
    """The statements that a client needs, prepared once."""

    STATEMENTS = """
        PREPARE try_select(text, bigint, text, bigint) AS
            SELECT status, retry_after_ms, key_id::text, key_value, lease
            FROM keypool_try_select($1, tokens => $2, model => $3, output_tokens => $4);
        PREPARE report(uuid, text, bigint, text, text, bigint, bigint) AS
            SELECT action, retry_after_ms
            FROM keypool_report($1, $2, $3, $4, $5, tokens => $6, output_tokens => $7);
    """

    def __init__(self, provider):
        self.provider = provider
        self.connection = psycopg2.connect("", application_name="keypool demo client")
        self.connection.autocommit = True
        self.cursor = self.connection.cursor()
        self.cursor.execute(self.STATEMENTS)

    def execute(self, statement, *arguments):
        self.cursor.execute(f"EXECUTE {statement}({', '.join(['%s'] * len(arguments))})", arguments)
        return self.cursor.fetchone()

    def select(self, call):
        call.status, call.retry_after_ms, call.key_id, call.key_value, call.lease = self.execute(
            "try_select", self.provider, call.prompt + call.max_output, call.model, call.max_output)

    def report(self, call, answer):
        """(what to do next, and in how many milliseconds)"""
        used = (call.prompt + call.output, call.output) if answer.status == 200 else (None, None)
        return self.execute("report", call.key_id, call.lease, answer.status, answer.headers, answer.error_code, *used)


class KeysInTurn:
    """Without keypool: takes the next key, and leaves one that was refused alone for as long as
    it was told, or for a second."""

    def __init__(self, accounts, provider):
        self.keys = [key for key in accounts if key["provider"] == provider and is_on(key)]
        random.shuffle(self.keys)
        self.ready_from = {key["key_id"]: time.time() + (key["cooling_seconds"] or 0) for key in self.keys}

    def select(self, call):
        key = next((key for key in self.keys if self.ready_from[key["key_id"]] <= call.asked), None)
        if key is None:
            call.status = "cooling"
            call.retry_after_ms = 1000 * (min(self.ready_from.values()) - call.asked)
            return
        self.keys.remove(key)
        self.keys.append(key)
        call.key_id, call.key_value = key["key_id"], key["secret"]

    def report(self, call, answer):
        if answer.status not in (200, None):
            told = json.loads(answer.headers).get("Retry-After", "")
            self.ready_from[call.key_id] = time.time() + (float(told) if told.replace(".", "").isdigit() else 1)
        return "done" if answer.status == 200 else "other_key", None


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("provider", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer(NamedTuple):
    """What the provider answered."""
    status: int | None = None
    headers: str | None = None      # a JSON object
    error_code: str | None = None
    body: dict = {}


class Log:
    """What one client did."""

    def __init__(self, provider):
        self.provider = provider
        self.asked = self.served = self.tokens = self.too_many = self.dropped = self.failed = self.bad = self.wrong_key = 0
        self.selections = []


class Client:
    def __init__(self, number, provider, gateway, socket_path, accounts):
        self.bad_keys = {key["secret"]: key for key in accounts if key.get("bad")}
        self.provider, self.traffic, self.gateway = provider, TRAFFIC[provider], gateway
        self.model = self.traffic.models[number % len(self.traffic.models)]
        self.random = random.Random(f"{provider} {number}")
        self.http = UnixConnection(socket_path)
        self.log = Log(provider)

    def work(self, begin, end):
        """Serve the requests as they come in; one that has to wait makes the next ones wait."""
        for moment, prompt in self.requests(begin, end):
            sleep_until(moment)
            self.log.asked += 1
            self.serve(prompt, end)
        return self.log

    def requests(self, begin, end):
        """(moment, prompt tokens) of the requests that reach this client."""
        moment, wave = begin, self.random.uniform(0, 2 * math.pi)
        while True:
            busy = 1 + 0.3 * math.sin(wave + (moment - begin) / 5)
            moment += self.random.expovariate(busy * self.traffic.per_second / self.traffic.clients)
            if moment >= end:
                return
            yield moment, round(self.random.lognormvariate(math.log(self.traffic.prompt), 0.5))

    def serve(self, prompt, end):
        """One request of a user: a key from the gateway, the call, and the account of what it took."""
        while time.time() < end:
            call = self.select(prompt)
            if call.status != "ok":
                sleep_until(min(time.time() + call.retry_after_ms / 1000, end))
                continue
            answer = self.send(call)
            self.note(call, answer)
            action, call.told_ms = self.report(call, answer)
            if action in ("done", "give_up"):
                return
            if action == "later":
                sleep_until(min(time.time() + call.told_ms / 1000, end))

    def select(self, prompt):
        call = Selection(self.provider, self.model, prompt, self.traffic.max_tokens, asked=time.time())
        self.gateway.select(call)
        call.replied = time.time()
        self.log.selections.append(call)
        return call

    def send(self, call):
        body = json.dumps({"model": call.model, "prompt_tokens": call.prompt, "max_tokens": call.max_output})
        try:
            self.http.request("POST", "/chat", body, {"Authorization": f"Bearer {call.key_value}"})
            response = self.http.getresponse()
            return Answer(response.status, json.dumps(dict(response.headers)), None, json.loads(response.read()))
        except (ConnectionError, http.client.HTTPException):
            self.http.close()
            return Answer(error_code="connect")

    def report(self, call, answer):
        call.settling = time.time()
        told = self.gateway.report(call, answer)
        call.settled = time.time()
        return told

    def note(self, call, answer):
        """For the demo's own books."""
        log, bad = self.log, self.bad_keys.get(call.key_value)
        call.released, call.failed = answer.status is None, answer.status not in (200, 429, None)
        call.output = answer.body.get("completion_tokens", 0)
        call.rests = None if answer.status not in (401, 402) else bad["account"] if answer.status == 402 else call.key_id
        log.dropped += call.released
        log.failed += call.failed
        log.too_many += answer.status == 429
        log.bad += bad is not None
        if answer.status == 200:
            log.served += answer.body["key_id"] == call.key_id
            log.tokens += call.prompt + call.output
        log.wrong_key += (bad["bad"] if bad else 200) != answer.status if answer.status in (200, 401, 402) else 0


def sleep_until(moment):
    time.sleep(max(0, moment - time.time()))
