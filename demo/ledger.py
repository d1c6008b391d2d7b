"""ledger.py - what the keys could have done: the demo's own books, kept from what the clients saw.

A key is loaded by what the original left (one sum per minute, so each counts as late as its minute
allows) and by the grants of this run. From that the ledger tells

  capacity        what an ideal scheduler could have served in the time of the run
  opens_at        when, at the latest, a key had room again: an answer "limited" is wrong if it was earlier
  turns           how evenly the keys of a tier were used while all of them had room

A client knows a moment of the server only as "between my call and the reply". Each rule takes the
end of that span that speaks for keypool, so what is reported as wrong is wrong.
"""

import collections
import math
from dataclasses import dataclass, field

KEEPS = 61          # a second s counts until s + 61 begins: the window is the seconds s-60 .. s
NO_LIMIT = math.inf


@dataclass
class Use:
    """One grant, as the client saw it."""
    key_id: str
    call: float
    reply: float
    estimate: int
    settle_call: float = math.inf
    settle_reply: float = math.inf
    tokens: int = 0
    served: bool = False        # else it was refused with a 429, or never sent and given back
    told_to_wait: int = 0       # seconds, by a 429


@dataclass
class Refusal:
    """One answer other than "ok"."""
    provider: str
    call: float
    reply: float
    estimate: int
    status: str
    retry_after_ms: int | None


@dataclass
class Entry:
    """A part of a key's load, and the moment when it leaves the window."""
    leaves: float
    requests: int
    tokens: int


@dataclass
class Key:
    id: str
    provider: str
    label: str
    priority: int
    max_rpm: float
    max_tpm: float
    ready_from: float                               # end of the cooldown that the original left
    rows: list = field(default_factory=list)        # (end of the minute, requests, tokens)
    uses: list = field(default_factory=list)

    def imported(self, latest):
        """The original's usage; `latest` maps the end of a minute to the second that is counted."""
        return [Entry(latest(end) + KEEPS, requests, tokens) for end, requests, tokens in self.rows]


def second_of(moment):
    return math.floor(moment)


class Ledger:
    def __init__(self, keys, imported_at):
        self.keys = {key.id: key for key in keys}
        self.imported_at = imported_at
        self.strangers = []     # uses of keys that should never be handed out

    def pool(self, provider):
        return [key for key in self.keys.values() if key.provider == provider]

    def add(self, uses):
        for use in sorted(uses, key=lambda use: use.call):
            key = self.keys.get(use.key_id)
            (key.uses if key else self.strangers).append(use)

    # What a key can have been loaded with at some moment between `call` and `reply`, at most.

    def load(self, key, call, reply):
        entries = key.imported(lambda end: math.floor(min(end, self.imported_at)))
        entries += [entry for use in key.uses if use.call <= reply for entry in self.weight(use, call, reply)]
        return [entry for entry in entries if entry.leaves > call]

    @staticmethod
    def weight(use, call, reply):
        granted = second_of(use.reply) + KEEPS
        if use.settle_reply <= call:
            recorded = Entry(second_of(use.settle_reply) + KEEPS, 0, use.tokens)
            return [Entry(granted, 1, 0), recorded] if use.served or use.told_to_wait else []
        if use.settle_call > reply:
            return [Entry(granted, 1, use.estimate)]
        settled = second_of(min(use.settle_reply, reply)) + KEEPS
        return [Entry(max(granted, settled), 1, max(use.estimate, use.tokens))]

    def opens_at(self, key, refusal):
        """The latest moment by which the key must have had room for the refused request."""
        entries = sorted(self.load(key, refusal.call, refusal.reply), key=lambda entry: entry.leaves)
        requests = sum(entry.requests for entry in entries)
        tokens = sum(entry.tokens for entry in entries)
        moment = refusal.call
        if refusal.estimate > key.max_tpm:
            return math.inf
        for entry in entries:
            if requests + 1 <= key.max_rpm and tokens + refusal.estimate <= key.max_tpm and tokens < key.max_tpm:
                break
            moment, requests, tokens = entry.leaves, requests - entry.requests, tokens - entry.tokens
        cooldowns = [use.settle_reply + use.told_to_wait for use in key.uses
                     if use.told_to_wait and use.settle_call <= refusal.reply]
        return max([moment, key.ready_from] + cooldowns)

    def is_wrong(self, refusal, tolerance=0.010):
        """True if a key had room at once, or has room before the moment that the answer names."""
        opens = min(self.opens_at(key, refusal) for key in self.pool(refusal.provider))
        named = math.inf if refusal.retry_after_ms is None else refusal.call + refusal.retry_after_ms / 1000
        return opens <= refusal.call or named > opens + tolerance

    # Capacity: every second, take all that the limit leaves.

    def capacity(self, key, limit, old, begin, end):
        """`old` are (second in which it leaves, amount). Returns what the limit allowed in the run."""
        if limit == NO_LIMIT:
            return NO_LIMIT
        leaving, taken = collections.Counter(), 0
        for leaves, amount in old:
            leaving[leaves] += amount
        used = sum(amount for leaves, amount in old if leaves > begin)
        for second in range(math.floor(begin), math.floor(end) + 1):
            used -= leaving[second] if second > begin else 0
            if second + 1 > key.ready_from and used < limit:
                leaving[second + KEEPS] += limit - used
                taken += limit - used
                used = limit
        return taken

    def capacities(self, provider, begin, end):
        """(requests, tokens) that the keys of a provider could have served."""
        requests = tokens = 0
        for key in self.pool(provider):
            old = key.imported(lambda minute_end: math.floor(min(minute_end - 1, self.imported_at)))
            requests += self.capacity(key, key.max_rpm, [(e.leaves, e.requests) for e in old], begin, end)
            tokens += self.capacity(key, key.max_tpm, [(e.leaves, e.tokens) for e in old], begin, end)
        return requests, tokens

    # Fairness.

    def tiers(self, provider):
        tiers = collections.defaultdict(list)
        for key in self.pool(provider):
            tiers[key.priority].append(key)
        return sorted(tiers.items())

    def is_loaded(self, key, call, reply, share=1.0, more=0):
        """True if the key may have used this share of a limit, or lack room for `more` tokens."""
        entries = self.load(key, call, reply)
        return (sum(entry.requests for entry in entries) >= share * key.max_rpm
                or sum(entry.tokens for entry in entries) + more > share * key.max_tpm)

    def turns(self, keys, begin, largest):
        """Grants of each key that was half free or more at the start, until the first of them was full."""
        free = [key for key in keys if key.ready_from <= begin and not self.is_loaded(key, begin, begin, 0.5)]
        full = (use.call for key in free for use in key.uses
                if self.is_loaded(key, use.call, use.reply, more=largest))
        until = min(full, default=math.inf)
        return [sum(use.reply <= until for use in key.uses) for key in free]
