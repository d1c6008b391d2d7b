# limited_model.py - what has limits and a meter: keys and quotas, with what is configured of them and of their provider.
#
# Times are microseconds since 1970. Nothing here is shared with the extension.
import dataclasses
import fnmatch
from dataclasses import dataclass, field

from meter_model import OF_A_DAY, UNITS, Meter
from slots_model import SECOND, Amounts, Rule, period_ends
from turns_model import hash_of_id

DEFAULT_COOLDOWN = 60
MAX_COOLDOWN = 86_400


@dataclass
class Provider:
    name: str
    strategy: str = "rotate"
    time_zone: str | None = None
    default_tokens: int = 0
    default_cooldown: int | None = None
    max_cooldown: int | None = None
    rate_limit_scope: str = "key"
    call_timeout: int = 1020

    def longest_block(self):
        return (self.max_cooldown or MAX_COOLDOWN) * SECOND

    # Any time will do: what is too short or too long is cut.
    def cooldown(self, seconds):
        seconds = (self.default_cooldown or DEFAULT_COOLDOWN) if seconds is None else seconds
        return round(min(max(seconds, 1), self.longest_block() / SECOND) * SECOND)


def matches(patterns, model):
    return any(fnmatch.fnmatchcase(model, pattern) for pattern in patterns)


def covers(account, key_account):
    return account is None or (key_account is not None and (key_account + "/").startswith(account + "/"))


@dataclass
class Limited:
    """What is the same of keys and quotas: limits, models, and a meter."""
    id: str
    provider: Provider
    limits: dict = field(default_factory=dict)  # by name, those that are set
    burst: int = 0
    account: str | None = None
    models: list | None = None
    except_models: list | None = None
    name: str = "key"
    rule: Rule = Rule()
    rolling: bool = False
    zone: str | None = None
    meter: Meter = None

    def __post_init__(self):
        self.meter = self.meter or Meter(self.width(), self.provider.call_timeout)

    def width(self):
        if self.rolling and any(limit in self.limits for limit in OF_A_DAY):
            return 1440
        return 60 if "max_rph" in self.limits or "max_tph" in self.limits else 1

    def serves(self, model):
        if self.models is not None and not (model and matches(self.models, model)):
            return False
        return not (self.except_models and model and matches(self.except_models, model))

    def ends(self, clock):
        return period_ends(self.zone or self.provider.time_zone, clock)

    # Whether it can ever admit such a request.
    def can_serve(self, amounts):
        return all(self.rule.asked(amounts)[UNITS[limit]] <= most for limit, most in self.limits.items())

    def needs_upkeep(self, clock):
        return self.meter.needs_upkeep(self.width(), self.provider.call_timeout, clock)

    def keep_up(self, clock):
        if self.meter.clock_was_wrong(clock):
            self.meter.move_to(self.ends(clock), self.provider.longest_block(), clock)
        self.meter.configure(self.width(), self.provider.call_timeout)

    # Its meter as its next use will leave it.
    def kept_up(self, clock):
        if not self.needs_upkeep(clock):
            return self.meter
        twin = dataclasses.replace(self, meter=self.meter.copy())
        twin.keep_up(clock)
        return twin.meter

    def refusal(self, amounts, model, clock):
        return self.kept_up(clock).refusal(self, amounts, model, clock)


@dataclass
class Key(Limited):
    secret: str = ""
    priority: int = 0
    weight: int = 1
    active: bool = True
    inactive_until: int | None = None
    expires_at: int | None = None

    def is_on(self, clock):
        if self.expires_at is not None and self.expires_at <= clock:
            return False
        return self.active or (self.inactive_until is not None and self.inactive_until <= clock)

    # Whether it is off for a time, and will be on.
    def returns(self, clock):
        return (not self.active and self.inactive_until is not None and self.inactive_until > clock
                and (self.expires_at is None or self.expires_at > self.inactive_until))

    # The moments from which on it is on or off by itself.
    def moments(self):
        return [time for time in (self.expires_at, None if self.active else self.inactive_until) if time is not None]

    # What keypool_list_keys shows of it. Its meter is moved if the clock was wrong, and else as it was last used.
    def listed(self, clock):
        meter = self.kept_up(clock) if self.meter.clock_was_wrong(clock) else self.meter
        deadline = max(meter.blocked_until, self.inactive_until or 0)
        return {
            "id": self.id, "priority": self.priority, "is_active": self.active, "weight": self.weight,
            "max_rpm": self.limits.get("max_rpm"), "max_tpm": self.limits.get("max_tpm"),
            "last_429_at": meter.last_429 or None, "cooldown_until": deadline or None,
            "total_requests": meter.total_requests, "total_tokens": meter.total.tokens,
            "last_used_at": meter.last_used or None, "window_requests": meter.window(clock, "requests"),
            "window_tokens": meter.window(clock, "tokens"),
            "open_reservations": sum(slot.requests for _, slot in meter.reserved.among(meter.second(clock), 61)),
            "in_flight": meter.open_calls(clock).requests, **self.listed_breaker(meter, meter.now(clock)), "turn": meter.turn,
        }

    def listed_breaker(self, meter, now):
        suspect = meter.is_suspect(now)
        return {"breaker": "suspect" if suspect else meter.breaker.word(now),
                "breaker_until": (meter.breaker.open_until if suspect else meter.breaker.holds_until(now)) or None,
                "breaker_reason": meter.breaker.reason}

    # What keypool_usage shows: minutes with something in them, newest first.
    def usage(self, clock, minutes):
        meter = self.kept_up(clock)
        newest = meter.now(clock) // (60 * SECOND)
        return [(m, *meter.minutes[m]) for m in range(newest, newest - minutes, -1) if any(meter.minutes.get(m, ()))]


@dataclass
class Quota(Limited):
    # What a lease calls it.
    def tag(self):
        return hash_of_id(self.id) >> 48 or 1

    def covers(self, key, model):
        return covers(self.account, key.account) and self.serves(model)

    # How narrow it is, for blame, the narrowest least: of models and an account, of an account, of models; then by the length
    # of the account. None: a 429 is never its.
    def narrowness(self):
        of_models = self.models is not None or self.except_models is not None
        of_costs = self.limits and all("cost" in limit for limit in self.limits)
        if of_costs or (self.account is None and not of_models):
            return None
        return 3 if self.account is None else 1 if of_models else 2, -len(self.account or "")

    # What keypool_list_quotas shows of it.
    def listed(self, clock):
        meter = self.kept_up(clock)
        period = (lambda kept, unit: meter.use_of_period(kept, clock, unit, self.rule))
        day = (lambda unit: meter.window(clock, unit) if self.rolling else period(meter.day, unit))
        refusal = self.refusal(Amounts(), "", clock)
        return {
            "id": self.id, "name": self.name, "account": self.account, "counts": self.rule.counts,
            "total_requests": meter.total_requests, "total_tokens": meter.total.tokens,
            "window_requests": meter.window(clock, "requests"), "window_tokens": meter.window(clock, "tokens"),
            "day_requests": day("requests"), "day_tokens": day("tokens"),
            "month_requests": period(meter.month, "requests"), "month_tokens": period(meter.month, "tokens"),
            "in_flight": meter.open_calls(clock).requests,
            "blocked_until": meter.out_until(meter.now(clock)) or None,
            "retry_after_ms": wait_ms(refusal.guess, clock) if refusal else None,
        }


def wait_ms(moment, clock):
    return min(max(-(-(moment - clock) // 1000), 1), 2**31 - 1)
