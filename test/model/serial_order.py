# serial_order.py - is there an order of these calls, one after the other, in which the model gives the same answers?
#
# The search of Wing and Gong, with a memory: which states can the model be in after some of the calls? A call may be next
# when every call that ended before it began is done. Two ways that did the same calls and came to the same state are one way
# from there on.
#
# What cannot be seen from outside (which grant came first) may differ between the orders that explain a round, so a
# search starts from all states that the rounds before may have left, and answers all that this one may.
from dataclasses import dataclass

from keypool_model import Key, Model, WINDOW

MOST_STATES = 30_000  # of one search


@dataclass(eq=False)
class Call:
    """One call of a session, and what came of it."""
    number: int                 # names the call, and the grant that it may be answered with
    session: int
    kind: str                   # "select", "record", "release", "mark_429" or "clear_cooldown"
    tokens: int | None = None   # of a select or record
    seconds: int | None = None  # of a mark_429
    key_id: str | None = None   # of all but select
    grant: int | None = None    # the select whose lease it uses
    pick: float | None = None   # it wants a lease: which, from 0 (the oldest known when it begins) to 1
    kept: bool = False          # a select whose lease may be used later
    start: int = 0              # nanoseconds of one clock that never steps back
    end: int = 0
    answer: tuple = ()

    def __str__(self):
        given = {name: getattr(self, name) for name in ("tokens", "seconds", "key_id", "grant")}
        arguments = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)
        return f"[{self.start} {self.end}] session {self.session}: #{self.number} {self.kind}({arguments}) = {self.answer}"


class TooManyStates(Exception):
    pass


class SharedKey(Key):
    """A key of the model that many states share, and ask again and again when it is free: so it remembers that."""

    def free_at(self, clock, tokens):
        if tokens not in self.free:
            self.free[tokens] = super().free_at(clock, tokens)
        return self.free[tokens]

    def grant(self, clock, tokens):
        self.free = {}
        return super().grant(clock, tokens)


# A copy that may be changed.
def copy_of_key(key):
    twin = object.__new__(SharedKey)
    twin.__dict__.update(key.__dict__)
    for name in ("open", "granted_in", "reserved_tokens", "requests", "tokens"):
        setattr(twin, name, getattr(key, name).copy())
    twin.minutes = {minute: counts.copy() for minute, counts in key.minutes.items()}
    twin.free = {}
    return twin


class State:
    """What the model may be like, and the leases by which it can be asked later. Never changed: a call makes another, which
    shares all keys but those that the call may change."""

    def __init__(self, provider, clock, keys, leases):
        self.provider = provider
        self.clock = clock
        self.keys = keys      # by id
        self.leases = leases  # the number of the select -> the model's lease
        self.essences = {}    # of the keys, as far as they are known

    def copy(self, *changing):
        then = State(self.provider, self.clock, dict(self.keys), self.leases)
        then.essences = {key_id: essence for key_id, essence in self.essences.items() if key_id not in changing}
        for key_id in changing:
            then.keys[key_id] = copy_of_key(self.keys[key_id])
        return then

    # What a call may lead to. Nothing, if the model cannot answer what the call was answered.
    def steps(self, call):
        if call.kind == "select":
            return self.select(call)
        if call.key_id not in self.keys:
            return []
        then = self.copy(call.key_id)
        return [then] if then.settle(call) == call.answer else []

    def select(self, call):
        status, key, _, wait = self.model(self.keys).select(self.provider, call.tokens, self.clock, change=False)
        if (key.id if key else None, status, wait) != call.answer:
            return []
        return [self.grant(call, key) if key else self]

    def model(self, keys):
        model = Model()
        model.keys = keys
        model.grants = max(key.turn for key in self.keys.values())
        return model

    def grant(self, call, key):
        then = self.copy(key.id)
        lease = then.model({key.id: then.keys[key.id]}).select(self.provider, call.tokens, self.clock)[2]
        if call.kept:
            then.leases = {**self.leases, call.number: lease}
        return then

    def settle(self, call):
        key = self.keys[call.key_id]
        lease = None if call.grant is None else self.leases[call.grant]
        if call.kind == "record":
            key.record(self.clock, call.tokens or 0, lease)
        elif call.kind == "release":
            key.release(self.clock, lease)
        elif call.kind == "mark_429":
            return (key.mark_429(self.clock, call.seconds, lease),)
        else:
            key.cooldown_until = None
        return ("",)

    # What tells this state from others that are reached by the same calls.
    def essence(self):
        keys = self.keys.values()
        for key in keys:
            if key.id not in self.essences:
                self.essences[key.id] = self.essence_of(key)
        turns = sorted(keys, key=lambda key: (key.turn, key.id))
        return tuple(key.id for key in turns), tuple(self.essences[key.id] for key in keys)

    # Grants of one second are told apart by their order, and only as far as their leases can be used later.
    def essence_of(self, key):
        names = {(lease.second, lease.sequence): number for number, lease in self.leases.items() if lease.key_id == key.id}
        grants = sorted((lease.second, lease.sequence) for lease in key.open)
        return (key.cooldown_until, tuple((grant[0], names.get(grant)) for grant in grants), tuple(sorted(key.requests)),
                tuple(sorted(key.tokens)), tuple(sorted(key.reserved_tokens.items())))

    def listed(self):
        return [key.listed(self.clock) for _, key in sorted(self.keys.items())]

    # The same at a later time, when only the leases of these selects can still be used.
    def later(self, clock, selects):
        leases = {number: lease for number, lease in self.leases.items() if number in selects}
        then = State(self.provider, clock, {key.id: copy_of_key(key) for key in self.keys.values()}, leases)
        for key in then.keys.values():
            key.forget_before(key.second(clock) - WINDOW)
        return then


def without_twins(states):
    return list({state.essence(): state for state in states}.values())


# Whether a call must come before another: it had ended, or comes first in what their session was asked to do.
def is_before(call, other):
    return call.end <= other.start or (call.session == other.session and call.number < other.number)


# The calls that must come before each call, as bits.
def predecessors(calls):
    return [sum(1 << i for i, earlier in enumerate(calls) if is_before(earlier, call)) for call in calls]


# The states in which the model may be after these calls, if it was in one of `states` before, if each call was answered
# as the model would, and if the keys are listed as the model lists them at the end. None: no order explains the calls.
# Raises TooManyStates if the search gets out of hand.
def explain(states, calls, listed):
    before = predecessors(calls)
    reached = {(0, state.essence()): state for state in states}
    todo = list(reached)
    for done, essence in todo:  # which grows
        state = reached[done, essence]
        for i, call in enumerate(calls):
            if done >> i & 1 or before[i] & ~done:
                continue
            for then in state.steps(call):
                node = (done | 1 << i, then.essence())
                if node not in reached:
                    reached[node] = then
                    todo.append(node)
        if len(reached) > MOST_STATES:
            raise TooManyStates
    everything = (1 << len(calls)) - 1
    return [state for (done, _), state in reached.items() if done == everything and state.listed() == listed]
