# configuration_model.py - thinks up keys, quotas and settings of a provider for a random history, and writes them down.
#
# A limit is a number or is not there. What is thought up is such that keypool takes it, but for quotas that would be four for
# one request: the model says which those are.
import itertools

from limited_model import covers
from meter_model import LIMITS
from slots_model import SECOND, Rule

ZONES = (None, "UTC", "America/Los_Angeles", "Asia/Kathmandu", "America/Santiago", "Atlantic/Azores")
MODELS = ("", "gpt-4o", "gpt-4o-mini", "o3")
QUOTA_ACCOUNTS = (None, None, "a", "a/x", "a/y", "b")
KEY_ACCOUNTS = (None, "a", "a/x", "a/x", "a/y/z", "ab", "b")
PATTERNS = (None, None, ["gpt*"], ["gpt-4?"], ["o*", "gpt-4o"])
EXCEPT = (None, None, None, ["*-mini"])
MINUTE = {"max_rpm": (1, 2, 5, 20), "max_tpm": (100, 1000, 3000), "max_output_tpm": (60, 500)}
HOUR = {"max_rph": (3, 20, 100), "max_tph": (2000, 9000)}
A_DAY = {"max_rpd": (5, 30, 200), "max_tpd": (3000, 40_000), "max_cost_per_day": (500, 5000)}
A_MONTH = {"max_requests_per_month": (30, 500), "max_tokens_per_month": (20_000, 200_000), "max_cost_per_month": (9000,)}
IN_FLIGHT = {"max_in_flight": (1, 2, 5)}
LIMITS_OF_KEYS = tuple(limit for limit in LIMITS if limit not in HOUR)
SETTINGS = {
    "strategy": (None, None, "fill_first", "rotate"), "time_zone": ZONES, "default_tokens": (None, 0, 50),
    "default_cooldown": (None, 20), "max_cooldown": (None, 100), "rate_limit_scope": (None, "key", "model", "account"),
    "call_timeout": (None, None, 60, 100, 3000),
}


# Some of these limits, each with this likelihood.
def some_of(random, limits, likelihood):
    return {name: random.choice(values) for name, values in limits.items() if random.random() < likelihood}


def in_order(limits):
    return {name: limits[name] for name in LIMITS if name in limits}


def limits_of_key(random):
    limits = some_of(random, MINUTE, 0.4)
    if random.random() < 0.3:
        limits |= some_of(random, A_DAY | A_MONTH, 0.2) | some_of(random, IN_FLIGHT, 0.5)
    return in_order(limits)


def limits_of_quota(random, rolling):
    window = {} if rolling else random.choice((MINUTE, MINUTE, HOUR))
    longer = some_of(random, A_DAY, 0.6 if rolling else 0.15) | some_of(random, A_MONTH, 0.15)
    return in_order(some_of(random, window, 0.4) | longer | some_of(random, IN_FLIGHT, 0.3))


# What a key, or a quota, may be changed to: attributes of the model, by their names.
def configuration_of_key(random, clock):
    expires = random.choice((1, 60, 4000)) * SECOND + clock if random.random() < 0.05 else None
    return {"limits": limits_of_key(random), "burst": random.choice((0, 0, 0, 1, 5, 30)),
            "priority": random.choice((0, 0, 0, 1, -5)), "weight": random.choice((1, 1, 1, 2, 5, 48)),
            "account": random.choice(KEY_ACCOUNTS), "models": random.choice((None, *PATTERNS)),
            "except_models": random.choice(EXCEPT), "expires_at": expires}


def configuration_of_quota(random):
    rolling = random.random() < 0.2
    return {"limits": limits_of_quota(random, rolling), "burst": random.choice((0, 0, 1, 10)), "rolling": rolling,
            "account": random.choice(QUOTA_ACCOUNTS), "models": random.choice(PATTERNS),
            "except_models": random.choice(EXCEPT), "zone": random.choice(ZONES),
            "rule": Rule(random.choice(("tokens", "tokens", "prompt", "input", "uncached")), random.choice((1, 1, 5)))}


# The columns of their rows.
def row_of_key(key):
    return {**{limit: key.limits.get(limit) for limit in LIMITS_OF_KEYS}, "priority": key.priority, "weight": key.weight,
            "account": key.account, "models": key.models, "except_models": key.except_models,
            "burst_seconds": key.burst or None}


def row_of_quota(quota):
    return {**{limit: quota.limits.get(limit) for limit in LIMITS}, "account": quota.account, "models": quota.models,
            "except_models": quota.except_models, "burst_seconds": quota.burst or None, "counts": quota.rule.counts,
            "output_weight": quota.rule.output_weight, "time_zone": quota.zone,
            "day": "rolling" if quota.rolling else "calendar"}


# -- quotas that would be too many for one request

def may_meet(quota, other):
    accounts = covers(quota.account, other.account) or covers(other.account, quota.account)
    return accounts and any(quota.serves(model) and other.serves(model) for model in (*MODELS, "gpt-4", "gpt-4o5", "o"))


def is_crowded(quota, others):
    near = [other for other in others if may_meet(quota, other)]
    return any(may_meet(a, b) and may_meet(a, c) and may_meet(b, c) for a, b, c in itertools.combinations(near, 3))
