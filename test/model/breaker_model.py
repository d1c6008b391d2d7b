# breaker_model.py - what a meter's circuit breaker should do, and what answers of providers mean to it.
#
# Times are microseconds since 1970, seconds whole ones; 0: never. Nothing here is shared with the extension.
from typing import NamedTuple

from slots_model import SECOND

LONGEST = 86_400         # seconds that it opens for
SHORTEST_PROBE = 60      # seconds that a probe may take
SUSPECT = 60             # seconds
EXHAUSTED = 3600         # seconds: a 429 that takes so long is of a day or a month


class Failure(NamedTuple):
    """A call has failed."""
    reason: str
    threshold: int             # of such failures in a row, that open it; 0: none do
    seconds: int               # for so long at first
    of_account: bool = False   # it is the fault of the account's quotas, not of the key
    spares_pool: bool = True   # at most half of the keys may be out


class Breaker(NamedTuple):
    open_until: int = 0
    opened_at: int = 0     # or closed by hand: only calls that were selected in a later second are heard
    failures: int = 0      # in a row, of one reason
    openings: int = 0      # in a row; 0: it is closed
    reason: str | None = None
    seconds: int = 0       # of the last opening
    probe_until: int = 0   # second: a probe is under way until then

    def hears(self, selected_in):
        return selected_in > self.opened_at // SECOND

    def word(self, now):
        if not self.openings:
            return "closed"
        return "open" if self.open_until > now else "probed" if self.holds_until(now) else "due"

    # Until when nothing is let through; 0: something is.
    def holds_until(self, now):
        probed = 0 < self.probe_until - now // SECOND <= LONGEST
        until = max(self.open_until, self.probe_until * SECOND if probed else 0)
        return until if self.openings and until > now else 0

    # The place of a probe that was selected in this second is its own until then.
    def end_of_probe(self, selected_in):
        return selected_in + min(max(self.seconds, SHORTEST_PROBE), LONGEST)

    def probed(self, now):
        return self._replace(probe_until=self.end_of_probe(now // SECOND))

    def unprobed(self, selected_in=None):
        own = selected_in is None or self.probe_until == self.end_of_probe(selected_in)
        return self._replace(probe_until=0) if own else self

    def succeeded(self, selected_in):
        if not (self.openings or self.failures) or not self.hears(selected_in):
            return self
        return Breaker(opened_at=self.opened_at)

    def in_a_row(self, failure):
        return self.failures + 1 if self.reason == failure.reason else 1

    def would_open(self, failure, selected_in):
        if not failure.threshold or not self.hears(selected_in):
            return False
        return self.openings > 0 or self.in_a_row(failure) >= failure.threshold

    def failed(self, failure, selected_in, now):
        if not self.hears(selected_in):
            return self
        noted = self._replace(failures=self.in_a_row(failure), reason=failure.reason)
        if not self.would_open(failure, selected_in):
            return noted.unprobed(selected_in)
        seconds = min(max(2 * self.seconds if self.openings else 0, failure.seconds), LONGEST)
        return Breaker(now + seconds * SECOND, now, noted.failures, self.openings + 1, noted.reason, seconds)

    def suspected(self, failure, now):
        return Breaker(open_until=now + SUSPECT * SECOND, opened_at=self.opened_at, failures=self.in_a_row(failure), reason=failure.reason,
                       seconds=SUSPECT)

    def is_suspect(self, now):
        return not self.openings and self.seconds > 0 and self.open_until > now

    def closed(self, now):
        return Breaker(opened_at=now)

    # After a clock that was wrong.
    def cut(self, latest, now):
        return self._replace(open_until=min(self.open_until, latest), opened_at=min(self.opened_at, now))


FAILURES = {
    "auth": Failure("auth", 1, 600), "forbidden": Failure("forbidden", 3, 600), "server": Failure("server", 5, 10),
    "billing": Failure("billing", 1, 3600, of_account=True, spares_pool=False),
    "overloaded": Failure("overloaded", 0, 1, spares_pool=False),
}
ACTIONS = {"ok": "done", "overloaded": "later", "client": "give_up"}  # else other_key


# What an answer is, by its status or, where there is none, by what the caller says of it.
def class_of(status, error_code, retry_after):
    if error_code:
        return {"connect": "unsent", "cancelled": "client"}.get(error_code, "server")
    if status == 429:
        return "exhausted" if retry_after and retry_after >= EXHAUSTED else "rate"
    known = {401: "auth", 402: "billing", 403: "forbidden", 503: "overloaded", 529: "overloaded"}
    return known.get(status) or ("ok" if status < 300 else "client" if status < 500 else "server")


# How long to leave a provider alone that has too much to do.
def overload_delay(in_a_row):
    return min(5 * 2 ** max(in_a_row - 1, 0), 120) * SECOND
