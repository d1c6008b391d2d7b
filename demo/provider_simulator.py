#!/usr/bin/python3
"""provider_simulator.py - LLM providers in one process: HTTP on a Unix socket, exact limits.

It shares nothing with keypool: it knows accounts (secret -> limits), authenticates every call by
the secret alone, and keeps an exact log per account.

  request    counts from the moment it arrives until 60 s later
  tokens     while a call runs, what it may need at most (prompt_tokens + max_tokens);
             when it is done, what it really took, until 60 s later

Can it answer 429 to a client that obeys keypool? Let g be the moment of a grant and a the arrival
of its call here, a > g; likewise for an earlier call, g' and a'.

  tokens     Never. Of all the calls that are in the log here at the moment a, take the one that was granted
             last: keypool saw every other one when it granted that. To keypool a call weighs its estimate
             from the grant (before a') until the record (after the call was done), then the real tokens until
             more than 60 s after the record. At each moment that is at least as much as it weighs here.
  requests   Keypool counts whole seconds: at second s the seconds s-60 .. s, which are 61. The request
             that frees a place was granted in second s-61 or before, so g - g' > 60 s, but perhaps by no
             more than a microsecond (granted at the end of its second, followed at the start of another).
             Then a - a' < 60 s whenever the earlier call was longer on its way than the later one.
             So the log here forgives TRANSIT seconds: a sender cannot know how long the network takes. Calls
             that needed this are counted ("close_calls"). A run of up to 60 s cannot need it.
"""

import argparse
import asyncio
import collections
import json
import math
import random
import time
from dataclasses import dataclass, field

WINDOW = 60.0
TRANSIT = 0.25
LONGEST = 8.0       # seconds that one answer takes at most
DROPPED = 0.004     # this share of the calls finds the door shut: the connection closes, nothing is counted


@dataclass
class Model:
    """How a provider answers: seconds to the first token, speed, and tokens written (all log-normal)."""
    first_token: float
    tokens_per_second: float
    written: float
    spread: float = 0.55

    def draw(self, max_tokens):
        written = max(1, min(max_tokens, round(random.lognormvariate(math.log(self.written), self.spread))))
        first = random.lognormvariate(math.log(self.first_token), self.spread)
        return min(LONGEST, first + written / self.tokens_per_second), written


MODELS = {
    "openai": Model(0.18, 900, 160),
    "anthropic": Model(0.26, 1300, 330),
    "gemini": Model(0.14, 1500, 150),
    "deepseek": Model(0.30, 800, 240),
    "mistral": Model(0.12, 1100, 140),
}


@dataclass
class Account:
    """One key at its provider: its limits and the exact log of what it did."""
    key_id: str
    provider: str
    max_rpm: float
    max_tpm: float
    disabled: bool
    blocked_until: float
    arrivals: collections.deque = field(default_factory=collections.deque)    # moments
    finished: collections.deque = field(default_factory=collections.deque)    # (moment, tokens)
    finished_tokens: int = 0
    running_tokens: int = 0

    def forget(self, now):
        while self.arrivals and self.arrivals[0] <= now - WINDOW:
            self.arrivals.popleft()
        while self.finished and self.finished[0][0] <= now - WINDOW:
            self.finished_tokens -= self.finished.popleft()[1]

    def wait_for_request(self, now):
        """Seconds until the log has room for one more request; 0 or less if it has."""
        full = len(self.arrivals) >= self.max_rpm
        return self.arrivals[len(self.arrivals) - int(self.max_rpm)] + WINDOW - now if full else 0.0

    def wait_for_tokens(self, now, tokens):
        excess = self.finished_tokens + self.running_tokens + tokens - self.max_tpm
        if excess <= 0:
            return 0.0
        for moment, used in self.finished:
            excess -= used
            if excess <= 0:
                return moment + WINDOW - now
        return 1.0      # only running calls are in the way

    def begin(self, now, tokens):
        self.arrivals.append(now)
        self.running_tokens += tokens

    def finish(self, now, reserved, used):
        self.running_tokens -= reserved
        self.finished.append((now, used))
        self.finished_tokens += used


def no_limit_as_infinite(limit):
    return limit if limit is not None and limit > 0 else math.inf


def load_accounts(path, loaded_at):
    """Accounts by secret, each with the requests that the original made in the last minute."""
    accounts = {}
    for row in json.load(open(path, encoding="utf-8"))["accounts"]:
        account = Account(row["key_id"], row["provider"], no_limit_as_infinite(row["max_rpm"]),
                          no_limit_as_infinite(row["max_tpm"]), row["disabled"],
                          loaded_at + (row["cooling_seconds"] or -math.inf))
        for seconds_ago, tokens in row["past"]:
            account.arrivals.append(loaded_at - seconds_ago)
            account.finish(loaded_at - seconds_ago, 0, tokens)
        accounts[row["secret"]] = account
    return accounts


class Simulator:
    """Serves POST /v1/<provider>/chat and GET /statistics."""

    def __init__(self, accounts):
        self.accounts = accounts
        self.counts = {provider: collections.Counter() for provider in MODELS}

    async def connection(self, reader, writer):
        try:
            while True:
                method, path, headers, body = await read_request(reader)
                if method == "GET":
                    answer = (200, {}, self.counts)
                else:
                    answer = await self.chat(path.split("/")[2], headers, json.loads(body))
                if answer is None:
                    break
                await write_response(writer, *answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def chat(self, provider, headers, call):
        """One call. The clock is the wall clock, as the cooldowns in the original's data are."""
        now, count = time.time(), self.counts[provider]
        if random.random() < DROPPED:
            count["dropped"] += 1
            return None
        account = self.accounts.get(headers.get("authorization", "").removeprefix("Bearer "))
        if account is None or account.disabled or account.provider != provider:
            count["unauthorized"] += 1
            return 401, {}, {"error": "this key is not known here"}
        tokens = call["prompt_tokens"] + call["max_tokens"]
        wait = self.refused_for(account, now, tokens)
        if wait:
            count["too_many"] += 1
            return 429, {"Retry-After": max(1, math.ceil(wait))}, {"error": "rate limit"}
        return 200, {}, await self.answer(account, now, call, tokens)

    def refused_for(self, account, now, tokens):
        """Seconds that the call must wait, or 0; counts the calls that needed the forgiveness."""
        account.forget(now)
        request = account.wait_for_request(now)
        if 0 < request <= TRANSIT:
            self.counts[account.provider]["close_calls"] += 1
            request = 0
        return max(0.0, request, account.wait_for_tokens(now, tokens), account.blocked_until - now)

    async def answer(self, account, now, call, tokens):
        seconds, written = MODELS[account.provider].draw(call["max_tokens"])
        used, count = call["prompt_tokens"] + written, self.counts[account.provider]
        account.begin(now, tokens)
        await asyncio.sleep(seconds)
        account.finish(time.time(), tokens, used)
        count["served"] += 1
        count["tokens"] += used
        return {"account": account.key_id, "usage": {"total_tokens": used}}


async def read_request(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return method, path, headers, body


async def write_response(writer, status, headers, content):
    body = json.dumps(content).encode()
    headers = {"Content-Type": "application/json", "Content-Length": len(body), **headers}
    lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Refused'}"] + [f"{n}: {v}" for n, v in headers.items()]
    writer.write("\r\n".join(lines + ["", ""]).encode() + body)
    await writer.drain()


async def main():
    parser = argparse.ArgumentParser(description="Simulated LLM providers on a Unix socket.")
    parser.add_argument("--socket", required=True)
    parser.add_argument("--accounts", required=True)
    parser.add_argument("--loaded-at", type=float, required=True, help="when the original's data was loaded (epoch)")
    options = parser.parse_args()
    simulator = Simulator(load_accounts(options.accounts, options.loaded_at))
    server = await asyncio.start_unix_server(simulator.connection, options.socket)
    await server.serve_forever()    # until a signal ends the process: there is nothing to put away


if __name__ == "__main__":
    asyncio.run(main())
