"""ledger.py - the demo's own books of keypool's answers, kept from what the clients saw: was there room?

A client knows a moment of the server only as "between my statement and its reply". Each rule takes the end of that
span that speaks for keypool, so what is reported as wrong is wrong. It asks by the providers' limits, over windows as
keypool keeps them: the whole seconds s - 60 .. s.
"""

import collections
import math
from dataclasses import dataclass

from provider_simulator import DAY, limits_of, midnight_after

TOLERANCE = 0.010


def is_on(key):
    return not key["disabled"] and not key["sealed_with_lost_key"]


def is_usable(key):
    return is_on(key) and not key.get("bad")


@dataclass
class Selection:
    """One call that keypool was asked for, and what became of it."""
    provider: str
    model: str
    prompt: int
    max_output: int
    asked: float = 0.0
    replied: float = 0.0
    status: str = "ok"
    retry_after_ms: int | None = None
    key_id: str | None = None
    key_value: str | None = None
    lease: str | None = None
    settling: float = math.inf
    settled: float = math.inf
    output: int = 0
    released: bool = False
    failed: bool = False            # it counts as a request, and used no tokens
    told_ms: int | None = None      # by the report: how long what it blames rests
    rests: str | None = None        # a key, or an account

    def amounts(self, unit):
        """(while the call is open, when it is settled)"""
        prompt = 0 if self.failed else self.prompt
        return {"requests": (1, 1), "tokens": (self.prompt + self.max_output, prompt + self.output),
                "input": (self.prompt, prompt), "output": (self.max_output, self.output),
                "calls in flight": (1, 0)}[unit]


def leaves(limit, moment):
    """When it no longer counts."""
    if limit.per is None:
        return math.inf
    return midnight_after(moment) if limit.per == DAY else math.floor(moment) + limit.per + 1


def weight(use, limit, refusal):
    """(until when, how much) a selection weighs, at most, when another is refused."""
    open_amount, settled_amount = use.amounts(limit.unit)
    selected, settled = leaves(limit, use.replied), leaves(limit, min(use.settled, refusal.replied))
    if use.settling > refusal.replied:
        return selected, open_amount
    if use.settled > refusal.asked:
        return max(selected, settled), max(open_amount, settled_amount)
    return selected if limit.unit == "requests" else settled, 0 if use.released else settled_amount


class Ledger:
    def __init__(self, accounts, loaded_at, selections):
        """`accounts` as in accounts.json; `loaded_at`: the moment that their cooldowns are from."""
        self.ready_from = collections.defaultdict(lambda: collections.defaultdict(lambda: math.inf))
        for key in filter(is_usable, accounts):
            ready_from = self.ready_from[key["provider"]]
            cooled = loaded_at + (key["cooling_seconds"] or 0)
            ready_from[key["account"]] = min(ready_from[key["account"]], cooled)
        self.account_of = {key["key_id"]: key["account"] for key in accounts}
        self.uses = collections.defaultdict(list)
        for use in selections:
            if use.key_id:
                for pair in limits_of(self.account_of[use.key_id], use.model):
                    self.uses[pair].append(use)

    def opens_at(self, limit, holder, refusal):
        """The latest moment by which this limit must have had room for the refused call."""
        weights = [weight(use, limit, refusal) for use in self.uses[limit, holder] if use.asked <= refusal.replied]
        weights = sorted(pair for pair in weights if pair[0] > refusal.asked)
        used, moment = sum(amount for _, amount in weights), refusal.asked
        for until, amount in weights:
            if used + refusal.amounts(limit.unit)[0] <= limit.most:
                break
            moment, used = until, used - amount
        return moment

    def asked_too_soon(self, selections):
        """Those that were given a key while it rested, or its account did, as a report had said before."""
        rests = [call for call in selections if call.told_ms and call.rests]
        return [call for call in selections if call.key_id and any(
            other.settled < call.asked and call.replied < other.settled + other.told_ms / 1000 - TOLERANCE
            and other.rests in (call.key_id, self.account_of[call.key_id]) for other in rests)]

    def is_wrong(self, refusal):
        """True if an account had room at once, or will have before the moment that the answer names."""
        opens = min(max(ready_from, *(self.opens_at(*pair, refusal) for pair in limits_of(account, refusal.model)))
                    for account, ready_from in self.ready_from[refusal.provider].items())
        if opens <= refusal.asked or refusal.retry_after_ms is None:
            return True
        return refusal.status != "busy" and refusal.asked + refusal.retry_after_ms / 1000 > opens + TOLERANCE
