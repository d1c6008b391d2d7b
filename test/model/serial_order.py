# serial_order.py - is there an order of these calls, one after the other, in which the model gives the same answers?
#
# The search of Wing and Gong, with a memory: which states can the model be in after some of the calls? A call may be next
# when every call that ended before it began is done. Two ways that did the same calls and came to the same state are one way
# from there on.
#
# What cannot be seen from outside (which grant came first) may differ between the orders that explain a round, so a
# search starts from all states that the rounds before may have left, and answers all that this one may.
import dataclasses
from dataclasses import dataclass

from keypool_model import Answer, Pool, Request, Used
from limited_model import Key, Quota
from meter_model import WINDOW
from turns_model import TURN_UNIT, first_of, hash_of_id, standing, step_of

MOST_STATES = 30_000  # of one search


@dataclass(eq=False)
class Call:
    """One call of a session, and what came of it."""
    number: int                 # names the call, and the grant that it may be answered with
    session: int
    kind: str                   # "select", "record", "release", "mark_429", "report" or "clear_cooldown"
    tokens: int | None = None   # of a select, record or report
    status: int | None = None   # of a report
    seconds: int | None = None  # of a mark_429
    scope: str | None = None    # of a mark_429
    key_id: str | None = None   # of all but select
    grant: int | None = None    # the select whose lease it uses
    pick: float | None = None   # it wants a lease: which, from 0 (the oldest known when it begins) to 1
    kept: bool = False          # a select whose lease may be used later
    start: int = 0              # nanoseconds of one clock that never steps back
    end: int = 0
    answer: tuple = ()

    def __str__(self):
        given = {name: getattr(self, name) for name in ("tokens", "status", "seconds", "scope", "key_id", "grant")}
        arguments = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)
        return f"[{self.start} {self.end}] session {self.session}: #{self.number} {self.kind}({arguments}) = {self.answer}"


class TooManyStates(Exception):
    pass


class Remembering:
    """A part of the model that many states share, and ask again and again whether it admits a request: so it remembers."""

    def refusal(self, amounts, model, clock):
        known = self.__dict__.setdefault("known", {})
        if (amounts, clock) not in known:
            known[amounts, clock] = super().refusal(amounts, model, clock)
        return known[amounts, clock]


class SharedKey(Remembering, Key):
    pass


class SharedQuota(Remembering, Quota):
    pass


# A copy that may be changed.
def copy_of(one):
    return dataclasses.replace(one, meter=one.meter.copy())


class State:
    """What the model may be like, and the leases by which it can be asked later. Never changed: a call makes another, which
    shares all keys but the one that the call may change."""

    def __init__(self, pool, clock, leases):
        self.pool = pool
        self.clock = clock
        self.leases = leases  # the number of the select -> the model's lease
        self.essences = {}    # of keys and quotas, as far as they are known

    def copy(self, key_id):
        pool = Pool(self.pool.provider)
        pool.keys = {**self.pool.keys, key_id: copy_of(self.pool.keys[key_id])}
        pool.quotas = {quota_id: copy_of(quota) for quota_id, quota in self.pool.quotas.items()}
        then = State(pool, self.clock, self.leases)
        changed = {key_id, *pool.quotas}
        then.essences = {one: essence for one, essence in self.essences.items() if one not in changed}
        return then

    # What a call may lead to. Nothing, if the model cannot answer what the call was answered. Of a select of a key it is known
    # how many others of the same key are to follow, and what turn the key then has.
    def steps(self, call, follow, final_turn):
        if call.kind == "select":
            return self.select(call, follow, final_turn)
        if call.key_id not in self.pool.keys:
            return []
        then = self.copy(call.key_id)
        return [then] if then.settle(call) == call.answer else []

    def select(self, call, follow, final_turn):
        key_id, *answer = call.answer
        choice = self.pool.choose(Request(call.tokens), self.clock)
        if key_id is None:
            return [self] if not choice.keys and Answer(*answer) in choice.answers else []
        key = self.pool.keys.get(key_id)
        if key not in choice.keys or answer[0] != "ok":
            return []
        last = final_turn - (follow + 1) * step_of(key)
        places = [stood for stood in self.places(key, last) if self.may_be_first(key, stood, choice.keys)]
        return [self.reserve(call, key, stood) for stood in places]

    # Where a key may have stood: at its turn; or later, if it was behind what its session knew.
    def places(self, key, last):
        step, turn = step_of(key), key.meter.turn
        first_after = turn + 1 + (hash_of_id(key.id) - turn - 1) % step
        return [turn] * (0 < turn <= last) + list(range(first_after if turn else hash_of_id(key.id) % step, last + 1, step))

    # Whether it is the first for a session that knows of as new a turn as there may be if the key stood there.
    def may_be_first(self, key, stood, free):
        newest = max([TURN_UNIT] + [other.meter.turn for other in self.pool.keys.values()])
        newest = min(stood + TURN_UNIT, newest)
        return standing(key, newest) == stood and first_of(free, newest) is key

    def reserve(self, call, key, stood):
        then = self.copy(key.id)
        lease = then.pool.reserve(then.pool.keys[key.id], Request(call.tokens), stood + step_of(key), self.clock)
        if call.kept:
            then.leases = {**self.leases, call.number: lease}
        return then

    def settle(self, call):
        key = self.pool.keys[call.key_id]
        lease = None if call.grant is None else self.leases[call.grant]
        if call.kind == "record":
            return (self.pool.record(key, self.clock, Used(call.tokens), lease),)
        if call.kind == "release":
            return (self.pool.release(key, self.clock, lease),)
        if call.kind == "mark_429":
            return (self.pool.mark_429(key, self.clock, call.seconds, lease, call.scope),)
        if call.kind == "report":
            return self.pool.report(key, self.clock, lease, call.status, None, None, call.tokens)
        key.meter.clear_blocks(self.clock)
        return ("",)

    # What tells this state from others that are reached by the same calls.
    def essence(self):
        for one in (*self.pool.keys.values(), *self.pool.quotas.values()):
            if one.id not in self.essences:
                self.essences[one.id] = self.essence_of(one)
        return tuple(sorted(self.essences.items()))

    # Which selection of a second a lease is matters only as far as it can be used later.
    def essence_of(self, one):
        meter, second = one.meter, one.meter.second(self.clock)
        recorded = tuple(sorted((at, slot[:4]) for at, slot in meter.recorded.among(second, WINDOW + 1) if any(slot[:4])))
        settled = tuple(sorted(number for number, lease in self.leases.items() if lease.key_id == one.id
                               and lease.sequence in getattr(meter.recorded.at(lease.second), "settled", ())))
        reserved = tuple(sorted((at, slot) for at, slot in meter.reserved.among(second, 64) if slot.requests))
        calls = tuple(sorted(slot for slot in meter.open.among(second // meter.open_width(), 16) if slot[1].requests))
        probes = tuple(sorted((number, *sorted(lease.probes)) for number, lease in self.leases.items()
                              if lease.key_id == one.id and lease.probes))
        return meter.turn, meter.blocked_until, meter.breaker, probes, recorded, settled, reserved, calls

    def listed(self):
        return ([key.listed(self.clock) for key in self.pool.sorted_keys()],
                [quota.listed(self.clock) for quota in self.pool.sorted_quotas()])

    # The same at a later time, when only the leases of these selects can still be used.
    def later(self, clock, selects):
        return State(self.pool, clock, {number: lease for number, lease in self.leases.items() if number in selects})


def without_twins(states):
    return list({state.essence(): state for state in states}.values())


# Whether a call must come before another: it had ended, or comes first in what their session was asked to do.
def is_before(call, other):
    return call.end <= other.start or (call.session == other.session and call.number < other.number)


# The calls that must come before each call, as bits.
def predecessors(calls):
    return [sum(1 << i for i, earlier in enumerate(calls) if is_before(earlier, call)) for call in calls]


# Of the selects of a key, how many come after those that are done and this one.
def count_followers(calls, done, this):
    return sum(not done >> i & 1 and i != this and call.kind == "select" and call.answer[0] == calls[this].answer[0]
               for i, call in enumerate(calls))


# The states in which the model may be after these calls, if it was in one of `states` before, if each call was answered
# as the model would, and if keys and quotas are listed as the model lists them at the end. None: no order explains the
# calls. Raises TooManyStates if the search gets out of hand.
def explain(states, calls, listed):
    before = predecessors(calls)
    turns = {row["id"]: row["turn"] for row in listed[0]}
    reached = {(0, state.essence()): state for state in states}
    todo = list(reached)
    for done, essence in todo:  # which grows
        state = reached[done, essence]
        for i, call in enumerate(calls):
            if done >> i & 1 or before[i] & ~done:
                continue
            follow = count_followers(calls, done, i) if call.kind == "select" else 0
            for then in state.steps(call, follow, turns.get(call.answer[0], 0)):
                node = (done | 1 << i, then.essence())
                if node not in reached:
                    reached[node] = then
                    todo.append(node)
        if len(reached) > MOST_STATES:
            raise TooManyStates
    everything = (1 << len(calls)) - 1
    return [state for (done, _), state in reached.items() if done == everything and state.listed() == listed]
