# affinity_model.py - which keys a conversation prefers.
import math

from turns_model import MASK, hash_of_id, mix

MOST_ASKED = 8


# FNV-1a, mixed.
def hash_of_text(text):
    value = 0xcbf29ce484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001b3 & MASK
    return mix(value)


def score(key, affinity):
    uniform = ((mix(hash_of_text(affinity) ^ hash_of_id(key.id)) >> 11) + 0.5) * 2.0 ** -53
    return -key.weight / math.log(uniform)


# Priority by priority; within one, account by account, by the best key of each. Keys without an account have one each.
def preferred(keys, affinity):
    scores = {key.id: score(key, affinity) for key in keys}
    best = {}
    for key in keys:
        account = key.priority, key.account or key.id
        best[account] = max(best.get(account, 0), scores[key.id])
    return sorted(keys, key=lambda key: (key.priority, -best[key.priority, key.account or key.id], -scores[key.id]))


# The first that is free, of the first few that could ever serve. `waits`: of each of those why it does not, or None.
def preferred_of(keys, waits, affinity):
    asked = [key for key in preferred(keys, affinity) if key.id in waits][:MOST_ASKED]
    return next((key for key in asked if waits[key.id] is None), None)
