# slots_model.py - what is counted: amounts of tokens and cost, and the slots of time that hold them.
#
# Times are microseconds since 1970, seconds whole ones. Nothing here is shared with the extension.
import datetime
import functools
import zoneinfo
from typing import NamedTuple

SECOND = 1_000_000


class Amounts(NamedTuple):
    tokens: int = 0
    output: int = 0
    cached: int = 0
    cost: int = 0

    # Parts that exceed the whole: their sum stands.
    def covered(self):
        return self._replace(tokens=max(self.tokens, self.output + self.cached))


class Rule(NamedTuple):
    """Which tokens a meter counts."""
    counts: str = "tokens"
    output_weight: int = 1

    def tokens_of(self, amounts):
        prompt, output = amounts.tokens - amounts.output, amounts.output * self.output_weight
        return {"tokens": prompt + output, "prompt": prompt, "input": prompt - amounts.cached,
                "uncached": prompt - amounts.cached + output}[self.counts]

    # What of one request counts against a limit, by the limit's unit.
    def asked(self, amounts):
        return {"requests": 1, "tokens": self.tokens_of(amounts), "output": amounts.output, "cost": amounts.cost}


class Recorded(NamedTuple):
    """What was settled in a slot of time."""
    requests: int = 0
    tokens: int = 0
    output: int = 0
    cost: int = 0
    settled: frozenset = frozenset()  # sequences of the selections of this second that were settled


class Reserved(NamedTuple):
    """What is open of the selections of a second."""
    selected: int = 0
    requests: int = 0
    tokens: int = 0
    output: int = 0


class Open(NamedTuple):
    """What is open of the selections of a longer time, until it is given up."""
    requests: int = 0
    tokens: int = 0
    cost: int = 0


class Period(NamedTuple):
    """A day or a month, by its end, and what was settled in it."""
    end: int = 0
    requests: int = 0
    used: Amounts = Amounts()


class Ring(dict):
    """Slots by their number, each known until one takes its place whose number is a multiple of `size` later."""

    def __init__(self, size, slots=()):
        super().__init__(slots)  # the place -> (the number, the slot)
        self.size = size

    def at(self, number):
        held = self.get(number % self.size)
        return held[1] if held and held[0] == number else None

    def put(self, number, slot):
        self[number % self.size] = (number, slot)

    # Those among the newest so many numbers.
    def among(self, newest, many):
        return [(number, slot) for number, slot in self.values() if 0 <= newest - number < many]


def less(amount, taken):
    return max(amount - taken, 0)


def sum_of(amounts, others):
    return Amounts(*(a + b for a, b in zip(amounts, others)))


# Where a day begins in a time zone, as a second. In a gap it begins with the gap; of two midnights the later one counts.
def start_of(date, zone):
    midnight = datetime.datetime(date.year, date.month, date.day, tzinfo=zone)
    is_double = midnight.utcoffset() > midnight.replace(fold=1).utcoffset()
    return round(midnight.replace(fold=int(is_double)).timestamp())


# The ends of the day and the month that a moment lies in, as seconds.
def period_ends(zone_name, clock):
    zone = zoneinfo.ZoneInfo(zone_name or "UTC")
    return ends_of_date(zone_name, datetime.datetime.fromtimestamp(clock // SECOND, zone).date())


@functools.lru_cache(maxsize=1000)
def ends_of_date(zone_name, date):
    zone = zoneinfo.ZoneInfo(zone_name or "UTC")
    next_month = (date.replace(day=1) + datetime.timedelta(days=32)).replace(day=1)
    return start_of(date + datetime.timedelta(days=1), zone), start_of(next_month, zone)
