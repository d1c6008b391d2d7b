"""provider_simulator.py - five LLM providers in one process: HTTP on a Unix socket, limits as the providers have them.

It also refuses bad keys (401, 402), and has bursts in which it serves nobody (500, 503, 529).

It shares nothing with keypool: it knows the keys by their secrets, the account of each, and LIMITS, and keeps an exact
log for each thing that is counted together (a Bucket). Sliding logs refuse whatever a fixed minute or a token bucket
of the same size, refilled continuously (Anthropic), would refuse, and more.

Can it answer 429 to a client that obeys keypool? To keypool a call weighs its estimate from the selection, which is
before it arrives here, until the settlement, which is after the answer was complete; then its real tokens for 60 whole
seconds and more. At each moment that is at least as much as the call weighs here. Only a *request* counts from the
selection on, so that two that were selected just over a window apart may arrive closer together, if the first took
longer on its way. No run is so long as a minute; the log of a second forgives TRANSIT.
"""

import asyncio
import collections
import dataclasses
import datetime
import json
import math
import random
import time
import zoneinfo
from typing import NamedTuple

TRANSIT = 0.25      # seconds by which requests may come late
LONGEST = 8.0       # seconds that one answer takes at most
DROPPED = 0.004     # this share of the calls finds the door shut: the connection closes, nothing is counted
DAY = "day"
PACIFIC = zoneinfo.ZoneInfo("America/Los_Angeles")


class Burst(NamedTuple):
    """For a while, in seconds since the first call, a provider serves nobody."""
    provider: str
    begins: float
    ends: float
    status: int


BURSTS = [Burst("anthropic", 8, 9.5, 529), Burst("gemini", 14, 15, 500), Burst("openai", 18, 18.5, 503)]


class Limit(NamedTuple):
    """So much of a unit for the models whose names begin so; a project is what Anthropic calls a workspace."""
    family: str
    whose: str
    unit: str               # requests; tokens, max_tokens included; input; output, as it is produced; calls in flight
    per: float | str | None
    most: int


LIMITS = [       # of two families that a name fits, the first
    Limit("gpt-5-mini", "project", "requests", 60, 200),
    Limit("gpt-5-mini", "organization", "requests", 60, 900),
    Limit("gpt-5", "project", "requests", 60, 40),
    Limit("gpt-5", "project", "tokens", 60, 15_000),
    Limit("gpt-5", "organization", "requests", 60, 200),
    Limit("claude-opus", "project", "output", 60, 12_000),
    Limit("claude-opus", "organization", "requests", 60, 300),
    Limit("claude-opus", "organization", "input", 60, 200_000),
    Limit("claude-opus", "organization", "output", 60, 45_000),
    Limit("claude-sonnet", "project", "input", 60, 70_000),
    Limit("claude-sonnet", "organization", "input", 60, 350_000),
    Limit("claude-sonnet", "organization", "output", 60, 80_000),
    Limit("gemini-2.5-flash", "project", "requests", 60, 50),
    Limit("gemini-2.5-flash", "project", "input", 60, 30_000),
    Limit("gemini-2.5-pro", "project", "requests", DAY, 25),    # so few that the run uses them up
    Limit("deepseek", "organization", "calls in flight", None, 6),
    Limit("mistral", "organization", "requests", 1 - TRANSIT, 6),
]


def limits_of(account, model):
    """What one call is counted in: pairs of a limit and the account or organization that has it."""
    family = next(limit.family for limit in LIMITS if model.startswith(limit.family))
    return [(limit, account if limit.whose == "project" else account.partition("/")[0])
            for limit in LIMITS if limit.family == family]


def midnight_after(moment):
    tomorrow = datetime.datetime.fromtimestamp(moment, PACIFIC).date() + datetime.timedelta(days=1)
    return datetime.datetime.combine(tomorrow, datetime.time(), PACIFIC).timestamp()


@dataclasses.dataclass
class Bucket:
    """All that one limit of one account counts."""
    limit: Limit
    log: collections.deque = dataclasses.field(default_factory=collections.deque)   # (until when it counts, amount)
    used: int = 0
    peak: int = 0       # with calls that were refused
    refused: int = 0
    served: int = 0
    keys: set = dataclasses.field(default_factory=set)

    def wait(self, now, call):
        """Seconds until there is room for the call."""
        while self.log and self.log[0][0] <= now:
            self.used -= self.log.popleft()[1]
        excess = self.used + self.reserved(call) - self.limit.most
        self.peak = max(self.peak, self.limit.most + excess)
        if excess <= 0:
            return 0
        self.refused += 1
        for until, amount in self.log:
            excess -= amount
            if excess <= 0:
                return until - now
        return 1    # only running calls are in the way

    def reserved(self, call):
        """The weight of a call while it runs."""
        sizes = {"tokens": call["prompt_tokens"] + call["max_tokens"], "input": call["prompt_tokens"]}
        return sizes.get(self.limit.unit, 1)

    def begin(self, key_id, now, call):
        self.keys.add(key_id)
        self.used += self.reserved(call)
        if self.limit.unit in ("requests", "input"):
            until = midnight_after(now) if self.limit.per == DAY else now + self.limit.per
            self.log.append((until, self.reserved(call)))

    def fail(self, now):
        """A call that is not served is a request all the same."""
        self.served += 1
        if self.limit.unit == "requests":
            self.used += 1
            self.peak = max(self.peak, self.used)
            self.log.append((midnight_after(now) if self.limit.per == DAY else now + self.limit.per, 1))

    def finish(self, now, call, written):
        self.served += 1
        if self.limit.unit in ("requests", "input"):
            return
        real = {"tokens": call["prompt_tokens"] + written, "output": written}.get(self.limit.unit, 0)
        self.used += real - self.reserved(call)
        self.peak = max(self.peak, self.used)
        if real:
            self.log.append((now + self.limit.per, real))


class Speed(NamedTuple):
    """How a provider answers: seconds to the first token, tokens a second, and tokens written (log-normal)."""
    first_token: float
    tokens_per_second: float
    written: float
    spread: float = 0.55

    def draw(self, max_tokens):
        written = max(1, min(max_tokens, round(random.lognormvariate(math.log(self.written), self.spread))))
        first = random.lognormvariate(math.log(self.first_token), self.spread)
        return min(LONGEST, first + written / self.tokens_per_second), written


SPEEDS = {
    "openai": Speed(0.18, 900, 160),
    "anthropic": Speed(0.26, 1300, 330),
    "gemini": Speed(0.14, 1500, 150),
    "deepseek": Speed(0.30, 800, 240),
    "mistral": Speed(0.12, 1100, 140),
}


class Simulator:
    """Serves POST /chat, and GET /books: what was counted."""

    def __init__(self, accounts, loaded_at):
        self.keys = {key["secret"]: key for key in accounts}
        self.loaded_at = loaded_at
        self.first_call = None
        self.buckets = {}
        self.counts = {provider: collections.Counter() for provider in SPEEDS}
        past = sorted((-ago, tokens, key["secret"]) for key in accounts for ago, tokens in key["past"])
        for when, tokens, secret in past:   # the original knew sums only: all of them count as input
            call = {"model": self.keys[secret]["past_model"], "prompt_tokens": tokens, "max_tokens": 0}
            for bucket in self.buckets_of(self.keys[secret], call):
                bucket.begin(self.keys[secret]["key_id"], loaded_at + when, call)
                bucket.finish(loaded_at + when, call, 0)
        for bucket in self.buckets.values():
            bucket.peak, bucket.served, bucket.keys = 0, 0, set()

    def buckets_of(self, key, call):
        return [self.buckets.setdefault(pair, Bucket(pair[0])) for pair in limits_of(key["account"], call["model"])]

    async def connection(self, reader, writer):
        try:
            while True:
                method, headers, body = await read_request(reader)
                answer = (200, {}, self.books()) if method == "GET" else await self.chat(headers, json.loads(body))
                if answer is None:
                    break
                await write_response(writer, *answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def chat(self, headers, call):
        now = time.time()
        key = self.keys.get(headers.get("authorization", "").removeprefix("Bearer "))
        if key is None or key["disabled"]:
            return 401, {}, {"error": "this key is not known here"}
        if random.random() < DROPPED:
            return None
        buckets, count = self.buckets_of(key, call), self.counts[key["provider"]]
        if failure := key.get("bad") or self.burst_of(key["provider"], now):
            count["failed"] += 1
            for bucket in buckets:
                bucket.fail(now)
            return failure, come_back_in(1.5) if failure == 529 else {}, {"error": "not served"}
        cooling = self.loaded_at + (key["cooling_seconds"] or 0) - now
        wait = max(cooling, *(bucket.wait(now, call) for bucket in buckets))
        if wait > 0:
            count["too_many"] += 1
            return 429, come_back_in(wait), {"error": "rate limit"}
        for bucket in buckets:
            bucket.begin(key["key_id"], now, call)
        seconds, written = SPEEDS[key["provider"]].draw(call["max_tokens"])
        await asyncio.sleep(seconds)
        for bucket in buckets:
            bucket.finish(time.time(), call, written)
        count["served"] += 1
        count["tokens"] += call["prompt_tokens"] + written
        return 200, {}, {"key_id": key["key_id"], "completion_tokens": written}

    def burst_of(self, provider, now):
        self.first_call = self.first_call or now
        return next((burst.status for burst in BURSTS
                     if burst.provider == provider and burst.begins <= now - self.first_call < burst.ends), None)

    def books(self):
        return {"counts": self.counts, "buckets": [
            {"limit": limit, "holder": holder, "peak": bucket.peak, "refused": bucket.refused, "served": bucket.served,
             "keys": len(bucket.keys)} for (limit, holder), bucket in self.buckets.items()]}


def come_back_in(seconds):
    """Header lines that say so, in one of the forms that are in use."""
    date = datetime.datetime.fromtimestamp(math.ceil(time.time() + seconds), datetime.timezone.utc)
    return random.choice([{"Retry-After": math.ceil(seconds)}, {"Retry-After": f"{seconds:.3f}"},
                          {"Retry-After": f"{date:%a, %d %b %Y %H:%M:%S} GMT"},
                          {"retry-after-ms": math.ceil(1000 * seconds)}])


async def read_request(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return head[0].split(" ")[0], headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def write_response(writer, status, headers, content):
    body = json.dumps(content).encode()
    headers = {"Content-Type": "application/json", "Content-Length": len(body), **headers}
    lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Refused'}"] + [f"{n}: {v}" for n, v in headers.items()]
    writer.write("\r\n".join(lines + ["", ""]).encode() + body)
    await writer.drain()


async def serve(path, accounts, loaded_at):
    """Until a signal ends the process. `loaded_at`: when the original's past ended."""
    server = await asyncio.start_unix_server(Simulator(accounts, loaded_at).connection, path)
    await server.serve_forever()
