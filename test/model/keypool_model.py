# keypool_model.py - what keypool should do, written for clarity: selections and settlements over the meters of keys and quotas.
#
# Times are microseconds since 1970. Nothing here is shared with the extension, and nothing is clever.
from typing import NamedTuple

from affinity_model import preferred_of
from breaker_model import ACTIONS, FAILURES, Failure, class_of, overload_delay
from limited_model import wait_ms
from slots_model import SECOND, Amounts

LEASE_LIFE = 7 * 3600
LEASE_AHEAD = 2 * 3600
MOST_QUOTAS = 3
SHORTEST_GUESS = SECOND // 100
LONGEST_GUESS = SECOND


class Lease(NamedTuple):
    key_id: str
    second: int
    sequence: int
    estimates: Amounts
    quotas: tuple  # tags
    model: str     # "": none was named
    probes: frozenset = frozenset()  # tags of the quotas, and 0 for the key, whose breakers' probe it is


class Request(NamedTuple):
    tokens: int | None = None
    model: str = ""
    output: int = 0
    cost: int = 0
    excluded: frozenset = frozenset()
    cached: int = 0
    affinity: str = ""


class Used(NamedTuple):
    """What a call used, as far as it says."""
    tokens: int | None = None
    output: int | None = None
    cached: int | None = None
    cost: int | None = None


class Ended(NamedTuple):
    """What became of a call."""
    counted: bool
    blocks: list        # the deadlines of what was blocked
    failures: int = 0   # in a row, of the first that failed
    out_until: int = 0  # until when what failed is out; 0: it is not


class Answer(NamedTuple):
    """Of a selection that finds no key."""
    status: str
    retry_after_ms: int | None = None
    blocked_by: str | None = None
    blocked_limit: str | None = None


class Wait(NamedTuple):
    """Why a key does not admit a request, and until when."""
    moment: int
    guess: int
    is_busy: bool   # somebody may settle a call before
    by: str
    what: str


class Choice(NamedTuple):
    """What a selection may be answered: one of the keys, by their turns; else one of the answers."""
    keys: list      # those that admit the request
    answers: list


class Pool:
    """A provider's keys and quotas."""

    def __init__(self, provider):
        self.provider = provider
        self.keys = {}     # by id
        self.quotas = {}   # by id

    def sorted_keys(self):
        return sorted(self.keys.values(), key=lambda key: key.id)

    def sorted_quotas(self):
        return sorted(self.quotas.values(), key=lambda quota: quota.name)

    def quotas_of(self, key, model):
        return [quota for quota in self.sorted_quotas() if quota.covers(key, model)]

    def meters_of(self, key, model):
        return [key] + self.quotas_of(key, model)

    # -- selections

    def amounts_of(self, request):
        tokens = self.provider.default_tokens if request.tokens is None else request.tokens
        return Amounts(tokens, request.output, request.cached, request.cost).covered()

    def choose(self, request, clock):
        candidates = [key for key in self.sorted_keys() if key.is_on(clock) and key.serves(request.model)]
        eligible = [key for key in candidates if key.id not in request.excluded]
        waits = self.waits_of(eligible, request, clock)
        free = [key for key in eligible if key.id in waits and waits[key.id] is None]
        mine = preferred_of(candidates, waits, request.affinity) if request.affinity else None
        if mine:
            return Choice([mine], [])
        returns = self.first_return(request, clock)
        if waits:
            return Choice(free, [] if free else answers_of(list(waits.values()), returns, clock))
        if eligible:
            return Choice([], [Answer("too_large")])
        return Choice([], [Answer("no_key", wait_ms(returns, clock) if returns else None)])

    # Of the keys that can ever admit the request, by their ids.
    def waits_of(self, keys, request, clock):
        amounts = self.amounts_of(request)
        fitting = [key for key in keys if all(one.can_serve(amounts) for one in self.meters_of(key, request.model))]
        return {key.id: self.wait_of(key, amounts, request.model, clock) for key in fitting}

    # When the first key comes back that is off for a time, and admits the request then.
    def first_return(self, request, clock):
        keys = [key for key in self.keys.values()
                if key.returns(clock) and key.serves(request.model) and key.id not in request.excluded]
        waits = self.waits_of(keys, request, clock)
        return min((max(key.inactive_until, waits[key.id].guess if waits[key.id] else 0) for key in keys if key.id in waits),
                   default=None)

    # The key waits for the last of its meters; the one is told that is in the way for the longest. None if it admits.
    def wait_of(self, key, amounts, model, clock):
        refusals = [(one.refusal(amounts, model, clock), one.name) for one in self.meters_of(key, model)]
        refusals = [(refusal, name) for refusal, name in refusals if refusal]
        if not refusals:
            return None
        told, by = max(refusals, key=lambda its: (its[0].guess, its[0].cools))
        return Wait(max(refusal.moment for refusal, _ in refusals), told.guess,
                    any(refusal.guess < refusal.moment for refusal, _ in refusals), by, told.what)

    # Reserves, in the latest second of all meters.
    def reserve(self, key, request, turn, clock):
        limited, estimates = self.meters_of(key, request.model), self.amounts_of(request)
        for one in limited:
            one.keep_up(clock)
        now = max(one.meter.now(clock) for one in limited)
        tags = [0, *(quota.tag() for quota in limited[1:])]
        probes = frozenset(tag for tag, one in zip(tags, limited) if one.meter.begin_probe(now))
        sequences = [one.meter.reserve(one.rule, estimates, now) for one in limited]
        key.meter.turn = turn
        return Lease(key.id, now // SECOND, sequences[0], estimates, tuple(tags[1:]), request.model, probes)

    # -- settling

    # The meters of a call: what the lease names, or what applies to the key.
    def limited_by(self, key, lease, model):
        if lease is None:
            return self.meters_of(key, model)[:1 + MOST_QUOTAS]
        by_tag = {quota.tag(): quota for quota in self.quotas.values()}
        return [key] + [by_tag[tag] for tag in lease.quotas if tag in by_tag]

    # Ends a call: a "record", a "release" or a "429"; a "block" is a 429 of nobody knows which call. Blocks what is to blame:
    # [(key or quota, model, until)]. `health`: "served", a Failure, or nothing that breakers hear of.
    def settle(self, ending, key, clock, used, lease, model="", blame=(), health=None):
        limited = self.limited_by(key, lease, model)
        for one in limited:
            one.keep_up(clock)
        now = max(one.meter.now(clock) for one in limited)
        if lease and now < lease.second * SECOND <= now + 600 * SECOND:
            now = lease.second * SECOND
        end = self.end_without_lease if lease is None else self.end_too_old if is_old(lease, clock) else self.end_by_lease
        spares = self.may_open(key, health, lease, clock)
        counted = end(ending, limited, clock, now, used, lease)
        blocks = [block(*its, now) for its in blame]
        if lease is None or is_old(lease, clock) or not counted:
            return Ended(counted, blocks)
        return Ended(counted, blocks, *self.note_health(limited, lease, health, not spares, now))

    # Whether a failure of this call may open the key's breaker: at most half of the keys, but one, may be out at once.
    def may_open(self, key, health, lease, clock):
        asks = isinstance(health, Failure) and health.spares_pool and lease and not is_old(lease, clock)
        if not asks or not key.meter.breaker.would_open(health, lease.second):
            return True
        on = [other for other in self.keys.values() if other.is_on(clock)]
        out = [other for other in on if other is not key and other.meter.breaker.openings]
        return len(out) < max(len(on) // 2, 1)

    def note_health(self, limited, lease, health, only_suspects, now):
        failed = self.failed(limited, health)
        heard = [one for one in failed if one.meter.breaker.hears(lease.second)]
        for one in limited:
            breaker = one.meter.breaker
            if health == "served":
                one.meter.breaker = breaker.succeeded(lease.second)
            elif one in failed and only_suspects and breaker.would_open(health, lease.second):
                one.meter.suspect(health, lease.second, now)
            elif one in failed:
                one.meter.breaker = breaker.failed(health, lease.second, now)
            elif (one.tag() if one is not limited[0] else 0) in lease.probes:
                one.meter.breaker = breaker.unprobed(lease.second)
        return (heard[0].meter.breaker.failures if heard else 0), max([one.meter.out_until(now) for one in failed], default=0)

    # Whose fault it is, in the order of the call's meters.
    def failed(self, limited, health):
        if not isinstance(health, Failure):
            return []
        quotas = [quota for quota in limited[1:] if quota.account is not None] if health.of_account else []
        return quotas or limited[:1]

    # The key's oldest call is taken to be this one. A 429 counts only if one is open.
    def end_without_lease(self, ending, limited, clock, now, used, _):
        second = limited[0].meter.oldest_open(now)
        if ending == "block" or (second is None and ending == "429"):
            return False
        for one in limited if second is not None else ():
            one.meter.close_share(second)
        return self.count(limited, clock, now, used, now // SECOND if second is None else second)

    def end_by_lease(self, ending, limited, clock, now, used, lease):
        if not limited[0].meter.settle_once(lease.second, lease.sequence, now):
            return False
        for one in limited:
            one.meter.close_estimates(one.rule, lease.second, lease.estimates)
        return ending == "release" or self.count(limited, clock, now, used, lease.second)

    # Of what is in no window any more the totals count.
    def end_too_old(self, ending, limited, clock, now, used, _):
        for one in limited if ending != "release" else ():
            one.meter.count_in_totals(used, one.ends(clock), now)
        return ending != "release"

    def count(self, limited, clock, now, used, selected_in):
        for one in limited:
            one.meter.count(one.rule, used, selected_in, one.ends(clock), now)
        return True

    def record(self, key, clock, used, lease=None, model=""):
        amounts = amounts_used(used, lease.estimates if lease else Amounts())
        return self.settle("record", key, clock, amounts, lease, model, health="served").counted

    def release(self, key, clock, lease):
        return self.settle("release", key, clock, Amounts(), lease).counted

    # Answers until when what is to blame is blocked.
    def mark_429(self, key, clock, seconds=None, lease=None, scope=None, model="", only_blocks=False):
        return max(self.limit(key, clock, seconds, lease, scope, model, only_blocks).blocks)

    def limit(self, key, clock, seconds, lease, scope=None, model="", only_blocks=False, used=Amounts()):
        limited = self.limited_by(key, lease, model)
        until = max(one.kept_up(clock).now(clock) for one in limited) + self.provider.cooldown(seconds)
        blame = [(*its, until) for its in self.blamed(limited, scope, (lease.model if lease else "") or model)]
        return self.settle("block" if only_blocks else "429", key, clock, used, lease, model, blame)

    # What keypool_report answers: class, action, retry_after_ms, settled.
    def report(self, key, clock, lease, status, error_code, retry_after, tokens):
        kind = class_of(status, error_code, retry_after)
        refused = not error_code and status >= 300
        used = amounts_used(Used(tokens), lease.estimates if lease and not refused else Amounts())
        if kind in ("rate", "exhausted"):
            ended = self.limit(key, clock, retry_after, lease, used=amounts_used(Used(tokens), Amounts()))
        elif kind == "unsent":
            ended = self.settle("release", key, clock, Amounts(), lease)
        else:
            health = "served" if kind == "ok" else FAILURES.get(kind)
            ended = self.settle("record", key, clock, used, lease, health=health)
        retry = {"overloaded": clock + overload_delay(ended.failures), "ok": 0, "client": 0}.get(
            kind, max([ended.out_until, *ended.blocks]))
        return kind, ACTIONS.get(kind, "other_key"), wait_ms(retry, clock) if retry > clock else None, ended.counted

    # [(key or quota, the model that is blocked, "" for all)]
    def blamed(self, limited, scope, model):
        key, quotas = limited[0], limited[1:]
        named = [quota for quota in quotas if scope == f"quota:{quota.name}"]
        usual = not named and (scope in (None, "quota") or scope.startswith("quota:"))
        narrow = [quota for quota in quotas if quota.narrowness() is not None] if usual else []
        found = named or [quota for quota in narrow if quota.narrowness() == min(n.narrowness() for n in narrow)]
        otherwise = self.provider.rate_limit_scope if usual and not found else scope
        if otherwise == "account":
            found = [quota for quota in quotas if quota.account is not None]
        return [(one, "") for one in found] or [(key, model if otherwise == "model" else "")]


def is_old(lease, clock):
    return not -LEASE_AHEAD <= clock // SECOND - lease.second <= LEASE_LIFE


def block(one, model, until, now):
    return one.meter.block_model(model, until, now) if model else one.meter.block(until, now)


# The first moment of all keys is told; of a key that waits for calls in flight an earlier guess may be; and of a key that
# comes back before, when that is.
def answers_of(waits, returns, clock):
    first = min(wait.moment for wait in waits)
    told = [wait for wait in waits if wait.moment == first]
    busy = [wait for wait in waits if wait.is_busy and any(
        wait.guess < other.guess and other.guess > clock + SHORTEST_GUESS for other in told)]
    return [answer_of(wait, min(wait.guess, returns or wait.guess), clock) for wait in told + busy]


def answer_of(wait, moment, clock):
    if wait.what == "max_in_flight":
        return Answer("busy", wait_ms(min(moment, clock + LONGEST_GUESS), clock), wait.by, wait.what)
    status = "cooling" if wait.what in ("cooldown", "breaker") else "limited"
    return Answer(status, wait_ms(moment, clock), wait.by, wait.what)


# Of what the call does not say its estimate stands, as far as there is room for it.
def amounts_used(used, estimates):
    tokens = estimates.tokens if used.tokens is None else used.tokens
    output = min(estimates.output, max(tokens, 0)) if used.output is None else used.output
    cached = min(estimates.cached, max(tokens - output, 0)) if used.cached is None else used.cached
    cost = estimates.cost if used.cost is None else used.cost
    return Amounts(*(max(amount, 0) for amount in (tokens, output, cached, cost))).covered()
