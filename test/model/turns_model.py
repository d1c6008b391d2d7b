# turns_model.py - whose turn is next among keys of one priority, and what a session may believe of it.
import uuid

TURN_UNIT = 720_720
MASK = (1 << 64) - 1


# The finalizer of MurmurHash3.
def mix(x):
    x = (x ^ (x >> 33)) * 0xff51afd7ed558ccd & MASK
    x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53 & MASK
    return x ^ (x >> 33)


def hash_of_id(key_id):
    halves = uuid.UUID(key_id).bytes[:8], uuid.UUID(key_id).bytes[8:]
    first, second = (int.from_bytes(half, "little") for half in halves)
    return mix(first ^ mix(second))


def step_of(key):
    return 0 if key.provider.strategy == "fill_first" else TURN_UNIT // key.weight


# Where a key stands, if `newest` is the largest turn that is known: at its turn, or, if it is behind, at a place of its own
# after the earliest. fill_first leaves turns alone.
def standing(key, newest):
    earliest = max(newest - TURN_UNIT, 0)
    if key.provider.strategy == "fill_first" or (key.meter.turn > 0 and key.meter.turn >= earliest):
        return key.meter.turn
    return earliest + ((key.meter.turn or hash_of_id(key.id)) - earliest) % step_of(key)


# Which of the keys comes first.
def first_of(keys, newest):
    return min(keys, key=lambda key: (key.priority, standing(key, newest), key.id))


class Belief:
    """What one session may take for the newest turn of a pool. It has looked at some keys' turns, but nobody tells at which:
    so these are all numbers that it may be. It has an order of keys for each set of models that are told apart, with a number
    of its own; they are forgotten when the provider is configured anew, or when keys come on or go off."""

    def __init__(self):
        self.forget()

    def forget(self):
        self.newest = {}    # what is told apart -> the numbers
        self.apart = set()  # models that are blocked on a key: these may have an order of their own
        self.passed = None

    # Perhaps it has forgotten.
    def doubt(self):
        for numbers in self.newest.values():
            numbers.add(TURN_UNIT)

    # The orders that a call for this model may use.
    def orders(self, pool, model, clock):
        passed = {(key.id, moment) for key in pool.keys.values() for moment in key.moments() if moment <= clock}
        if passed != self.passed:
            self.forget()
            self.passed = passed
        if any(blocked == model and until > key.meter.now(clock) for key in pool.keys.values()
               for blocked, until in key.meter.models if model):
            self.apart.add(model)
        rules = [*pool.sorted_keys(), *pool.sorted_quotas()]
        shared = tuple(rule.serves(model) for rule in rules)
        return [(shared, "")] + [(shared, model)] * (model in self.apart)

    # What the newest turn may be at the end of a call.
    def numbers(self, pool, orders):
        known = set().union(*(self.newest.get(order, {TURN_UNIT}) for order in orders))
        if len(orders) > 1:
            known.add(TURN_UNIT)
        return known | {key.meter.turn for key in pool.keys.values() if key.meter.turn > min(known)}

    # It is one of these now.
    def set(self, pool, orders, numbers):
        for order in orders:
            kept = self.numbers(pool, orders) if len(orders) > 1 else set()
            self.newest[order] = kept | numbers
