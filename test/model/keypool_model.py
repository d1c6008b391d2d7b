# keypool_model.py - what keypool should do, written for clarity: a key is a list of what happened to it.
#
# Times are microseconds since 1970. Nothing here is shared with the extension, and nothing is clever.
from dataclasses import dataclass, field

SECOND = 1_000_000
WINDOW = 60            # at second s the window is the seconds s-60 .. s
TRACKED = 63           # grants of one second that are known one by one
DEFAULT_COOLDOWN = 60
MAX_COOLDOWN = 86400


class Refused(Exception):
    """A call that fails with this SQLSTATE."""

    def __init__(self, sqlstate, status=None, retry_after_ms=None):
        super().__init__(sqlstate)
        self.sqlstate = sqlstate
        self.status = status
        self.retry_after_ms = retry_after_ms


@dataclass
class Lease:
    key_id: str
    second: int
    sequence: int
    estimate: int


@dataclass
class Key:
    id: str
    provider: str
    secret: str
    priority: int = 0
    max_rpm: int = 0
    max_tpm: int = 0
    active: bool = True
    inactive_until: int | None = None
    turn: int = 0                                       # the number of its last grant among all; 0: never
    newest_second: int = 0
    cooldown_until: int | None = None
    last_429_at: int | None = None
    last_used_at: int | None = None
    total_requests: int = 0
    total_tokens: int = 0
    open: list = field(default_factory=list)            # leases not yet settled
    granted_in: dict = field(default_factory=dict)      # second -> grants
    reserved_tokens: dict = field(default_factory=dict)  # second -> estimates of its open leases
    requests: list = field(default_factory=list)        # seconds in which a recorded request counts
    tokens: list = field(default_factory=list)          # (second, tokens) recorded
    minutes: dict = field(default_factory=dict)         # minute -> [requests, tokens, 429s]

    # The key's own clock: the newest second that it has seen counts as now if the clock is behind it.
    def now(self, clock):
        return max(clock, self.newest_second * SECOND)

    def second(self, clock):
        return self.now(clock) // SECOND

    def open_in_window(self, at):
        return [lease for lease in self.open if at - WINDOW <= lease.second <= at]

    def requests_in_window(self, at):
        return sum(1 for s in self.requests if at - WINDOW <= s <= at) + len(self.open_in_window(at))

    def tokens_in_window(self, at):
        recorded = sum(n for s, n in self.tokens if at - WINDOW <= s <= at)
        return recorded + sum(n for s, n in self.reserved_tokens.items() if at - WINDOW <= s <= at)

    def fits(self, at, tokens):
        if self.max_rpm and self.requests_in_window(at) + 1 > self.max_rpm:
            return False
        used = self.tokens_in_window(at)
        return not self.max_tpm or (used < self.max_tpm and used + tokens <= self.max_tpm)

    def too_small_for(self, tokens):
        return bool(self.max_tpm) and tokens > self.max_tpm

    def cooling(self, clock):
        return self.cooldown_until is not None and self.cooldown_until > self.now(clock)

    # When the key can serve the request if nothing else happens; None if it can now.
    def free_at(self, clock, tokens):
        at = start = self.second(clock)
        while not self.fits(at, tokens):
            at += 1
        if at == start and not self.cooling(clock):
            return None
        moment = self.now(clock) if at == start else at * SECOND
        return max(moment, self.cooldown_until) if self.cooling(clock) else moment

    def grant(self, clock, tokens):
        at = self.second(clock)
        lease = Lease(self.id, at, min(self.granted_in.get(at, 0), TRACKED), tokens)
        self.granted_in[at] = self.granted_in.get(at, 0) + 1
        self.open.append(lease)
        self.reserved_tokens[at] = self.reserved_tokens.get(at, 0) + tokens
        self.newest_second = at
        return lease

    def close(self, lease, tokens):
        self.open.remove(lease)
        left = max(self.reserved_tokens[lease.second] - tokens, 0)
        still_open = any(other.second == lease.second for other in self.open)
        self.reserved_tokens[lease.second] = left if still_open else 0

    def is_open(self, lease, at):
        return at - WINDOW <= lease.second <= at and lease in self.open

    def record(self, clock, tokens, lease=None):
        at = self.second(clock)
        when = self.now(clock)
        if lease is None:
            self.record_without_lease(at)
        elif self.is_open(lease, at):
            self.close(lease, lease.estimate)
            self.requests.append(lease.second)
        self.tokens.append((at, tokens))
        self.newest_second = at
        minute = self.minutes.setdefault(when // (60 * SECOND), [0, 0, 0])
        minute[0] += 1
        minute[1] += tokens
        self.total_requests += 1
        self.total_tokens += tokens
        self.last_used_at = when

    def record_without_lease(self, at):
        open_now = sorted(self.open_in_window(at), key=lambda lease: (lease.second, lease.sequence))
        if not open_now:
            self.requests.append(at)
            return
        oldest = open_now[0]
        same_second = [lease for lease in open_now if lease.second == oldest.second]
        self.close(oldest, self.reserved_tokens[oldest.second] // len(same_second))
        self.requests.append(oldest.second)

    def release(self, clock, lease):
        if self.is_open(lease, self.second(clock)):
            self.close(lease, lease.estimate)

    def mark_429(self, clock, seconds, lease=None):
        when = self.now(clock)
        seconds = DEFAULT_COOLDOWN if seconds is None else seconds
        seconds = min(max(seconds, 1), MAX_COOLDOWN)
        if lease is not None:
            self.record(clock, 0, lease)
        self.newest_second = self.second(clock)
        self.minutes.setdefault(when // (60 * SECOND), [0, 0, 0])[2] += 1
        self.last_429_at = when
        self.cooldown_until = max(self.cooldown_until or 0, when + round(seconds * SECOND))
        return self.cooldown_until

    # Drops what happened before a second. It must have left the window for good.
    def forget_before(self, second):
        self.open = [lease for lease in self.open if lease.second >= second]
        self.granted_in = {s: n for s, n in self.granted_in.items() if s >= second}
        self.reserved_tokens = {s: n for s, n in self.reserved_tokens.items() if s >= second}
        self.requests = [s for s in self.requests if s >= second]
        self.tokens = [(s, n) for s, n in self.tokens if s >= second]

    # What keypool_list_keys shows of it.
    def listed(self, clock):
        at = self.second(clock)
        deadlines = [t for t in (self.cooldown_until, self.inactive_until) if t is not None]
        return {
            "id": self.id, "priority": self.priority, "is_active": self.active,
            "max_rpm": self.max_rpm or None, "max_tpm": self.max_tpm or None,
            "last_429_at": self.last_429_at, "cooldown_until": max(deadlines) if deadlines else None,
            "total_requests": self.total_requests, "total_tokens": self.total_tokens,
            "last_used_at": self.last_used_at, "window_requests": self.requests_in_window(at),
            "window_tokens": self.tokens_in_window(at), "open_reservations": len(self.open_in_window(at)),
        }

    # What keypool_usage shows: minutes with something in them, newest first.
    def usage(self, clock, minutes):
        newest = self.now(clock) // (60 * SECOND)
        return [(m, *self.minutes[m]) for m in range(newest, newest - minutes, -1) if m in self.minutes]


class Model:
    def __init__(self):
        self.keys = {}
        self.grants = 0

    def of(self, provider):
        return sorted((k for k in self.keys.values() if k.provider == provider), key=lambda k: k.id)

    def key(self, key_id):
        if key_id not in self.keys:
            raise Refused("KP404")
        return self.keys[key_id]

    # The keys that a selection may take, after those that come back have come back.
    def candidates(self, provider, clock, change):
        keys = self.of(provider)
        active = [k for k in keys if k.active]
        if active:
            return active
        returning = [k for k in keys if k.inactive_until is not None and k.inactive_until <= clock]
        if change:
            for key in returning:
                key.active, key.inactive_until = True, None
        return returning

    # Answers (status, key, lease, retry_after_ms).
    def select(self, provider, tokens, clock, change=True):
        candidates = self.candidates(provider, clock, change)
        big_enough = [k for k in candidates if not k.too_small_for(tokens)]
        free = [k for k in big_enough if k.free_at(clock, tokens) is None]
        if free:
            best = min(free, key=lambda k: (k.priority, k.turn, k.id))
            if not change:
                return "ok", best, None, None
            self.grants += 1
            best.turn = self.grants
            return "ok", best, best.grant(clock, tokens), None
        if big_enough:
            moment, merely_limited = min((k.free_at(clock, tokens), not k.cooling(clock)) for k in big_enough)
            return "limited" if merely_limited else "cooling", None, None, wait_ms(moment, clock)
        if candidates:
            return "too_large", None, None, None
        waits = [k.inactive_until for k in self.of(provider) if k.inactive_until is not None]
        return "no_key", None, None, wait_ms(min(waits), clock) if waits else None

    # The same, but an error undoes what is transactional: keys that came back for this call are off again.
    def select_or_raise(self, provider, tokens, clock):
        before = [(key, key.active, key.inactive_until) for key in self.of(provider)]
        status, key, lease, wait = self.select(provider, tokens, clock)
        if status == "ok":
            return status, key, lease, wait
        for key, active, inactive_until in before:
            key.active, key.inactive_until = active, inactive_until
        sqlstate = {"no_key": "KP404", "too_large": "KP413"}.get(status, "KP429")
        raise Refused(sqlstate, status, wait)

    def toggle(self, key_id, active, for_seconds, clock):
        key = self.key(key_id)
        if active and for_seconds is not None:
            raise Refused("22023")
        key.active = active
        key.inactive_until = None if for_seconds is None else clock + for_seconds * SECOND


def wait_ms(moment, clock):
    return max(-(-(moment - clock) // 1000), 1)
