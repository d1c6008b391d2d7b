# random_history.py - one session's random history: each step is done by keypool and by the model, and compared.
import collections
import json
import math
import random

import psycopg2

from configuration_model import MODELS, ZONES
from keypool_model import Answer, Pool, Request, Used, is_old
from keypool_server import START, clock_text, list_keys, list_quotas, micros, turn_of
from limited_model import Key, Provider, Quota
from random_configuration import Configuring, Difference
from slots_model import SECOND, period_ends
from turns_model import Belief, first_of, standing, step_of

PROVIDERS = ("alpha", "beta", "gamma")
TOKENS = (None, 0, 0, 1, 10, 100, 100, 400, 999, 1000, 1001, 5000)
AFFINITIES = ("", "", "", "one", "two", "a longer name of a conversation", "\u00e4")
PARTS = (0, 0, 0, 1, 10, 60, 300)
STARTS = [START + days * 86_400 * SECOND for days in (0, 58, 66, 93, 247, 296, 303, 364, 788)]  # changes of clock, leap day
STATUSES = (200, 200, 200, 401, 402, 403, 403, 400, 429, 500, 500, 503, 529, None)
SQLSTATES = {"no_key": "KP404", "too_large": "KP413"}  # else KP429


# What has happened to a breaker.
def breaker_events(before, meter, clock):
    after = meter.breaker
    if after.openings > before.openings:
        yield "breaker opened again" if before.openings else "breaker opened"
    if before.openings and not after.openings:
        yield "breaker closed"
    if meter.is_suspect(meter.now(clock)) and after != before:
        yield "suspect"


class History(Configuring):
    def __init__(self, connection, seed, seen):
        self.random = random.Random(seed)
        self.cursor = connection.cursor()
        self.pools = {name: Pool(Provider(name)) for name in PROVIDERS}
        self.beliefs = {name: Belief() for name in PROVIDERS}
        self.leases = collections.deque(maxlen=200)  # (the model's lease, the server's text), newest last
        self.deleted = []
        self.serial = 0
        self.steps = collections.deque(maxlen=20)
        self.seen = seen      # how often each event happened

    def begin(self):
        self.clock = 0
        self.set_clock(self.random.choice(STARTS) + self.random.randrange(86_400) * SECOND)
        for pool in self.pools.values():
            for _ in range(5):
                self.add_key(pool)
            self.add_quota(pool)

    # One statement; answers its first row, or its error.
    def run(self, sql, *arguments):
        self.steps.append((self.clock, sql, arguments))
        try:
            self.cursor.execute(sql, arguments)
            return self.cursor.fetchone() if self.cursor.description else None
        except psycopg2.Error as error:
            return error

    def expect(self, what, expected, got):
        if expected != got:
            raise Difference(f"{what}\n#   expected {expected}\n#   got      {got}")

    def expect_one_of(self, what, expected, got):
        if got not in expected:
            raise Difference(f"{what}\n#   expected one of {expected}\n#   got      {got}")

    def note(self, *events):
        for event in events:
            self.seen[event] += 1

    def set_clock(self, clock):
        for one in self.all_limited():
            ends = one.meter.day.end, one.meter.month.end
            if any(self.clock < end * SECOND <= clock for end in ends):
                self.note("day or month ended")
        self.clock = clock
        self.run("SET keypool.test_now = %s", clock_text(clock))

    def all_limited(self):
        return [one for pool in self.pools.values() for one in (*pool.keys.values(), *pool.quotas.values())]

    def all_keys(self):
        return [(pool, key) for pool in self.pools.values() for key in pool.keys.values()]

    def some_pool(self):
        return self.random.choice(list(self.pools.values()))

    def some_key(self):
        return self.random.choice(self.all_keys())

    # -- selections

    def some_request(self, pool):
        draw = self.random
        excluded = draw.sample(list(pool.keys), draw.randrange(len(pool.keys) + 1)) if draw.random() < 0.1 else []
        return Request(draw.choice(TOKENS), draw.choice(MODELS), draw.choice(PARTS), draw.choice((0, 0, 7, 100)),
                       frozenset(excluded), draw.choice(PARTS), draw.choice(AFFINITIES))

    def select(self):
        pool = self.some_pool()
        function = self.random.choices(("select", "try_select", "peek"), (4, 4, 2))[0]
        request = self.some_request(pool)
        got = self.run("SELECT key_id::text, key_value, status, retry_after_ms, lease, priority, max_rpm, max_tpm, blocked_by,"
                       f" blocked_limit FROM keypool_{function}(%s, %s, %s, %s, %s, %s, %s::uuid[], cached_tokens => %s)", pool.provider.name,
                       request.tokens, request.model or None, request.output, request.cost, request.affinity or None,
                       sorted(request.excluded) or None, request.cached)
        choice = pool.choose(request, self.clock)
        if choice.keys:
            self.expect_key(function, pool, request, choice.keys, got)
        else:
            self.expect_refusal(function, pool, request, choice.answers, got)
        return pool

    def expect_refusal(self, function, pool, request, answers, got):
        belief = self.beliefs[pool.provider.name]
        orders = belief.orders(pool, request.model, self.clock)
        belief.set(pool, orders, belief.numbers(pool, orders))
        status = answers[0].status
        if function != "select":
            if isinstance(got, psycopg2.Error):
                raise Difference(f"{function}: expected one of {answers}, got {got.pgcode} {got}")
            self.expect_one_of(function, answers, Answer(got[2], got[3], got[8], got[9]))
            self.expect(f"{function}: no key", (None, None, None), (got[0], got[1], got[4]))
        elif not isinstance(got, psycopg2.Error):
            raise Difference(f"{function}: expected one of {answers}, got {got}")
        else:
            self.expect(function, SQLSTATES.get(status, "KP429"), got.pgcode)
            if got.pgcode == "KP429":
                self.expect_one_of(function, answers, Answer(**json.loads(got.diag.message_detail)))
        event = status if function != "select" else SQLSTATES.get(status, "KP429")
        self.note(f"{function} {event}", *self.who_refused(answers[0]))

    def who_refused(self, answer):
        return [] if answer.blocked_by is None else ["refused by a key" if answer.blocked_by == "key" else "refused by a quota"]

    def expect_key(self, function, pool, request, free, got):
        if isinstance(got, psycopg2.Error):
            raise Difference(f"{function}: expected one of {[key.id for key in free]}, got {got.pgcode} {got}")
        if got[0] not in [key.id for key in free]:
            raise Difference(f"{function}: expected one of {[key.id for key in free]}, got {got}")
        key = pool.keys[got[0]]
        selects = function != "peek"
        expected = (key.id, key.secret if selects else None, "ok", None, selects, key.priority, key.limits.get("max_rpm"),
                    key.limits.get("max_tpm"), None, None)
        self.expect(function, expected, (*got[:4], got[4] is not None, *got[5:]))
        turn = self.expect_turn(function, pool, request, free, key)
        if selects:
            self.leases.append((pool.reserve(key, request, turn, self.clock), got[4]))
        self.note(f"{function} ok", *self.kinds_of_choice(pool, key, request))
        if selects and self.leases[-1][0].probes:
            self.note("probe")

    def kinds_of_choice(self, pool, key, request):
        kinds = {"back by itself": not key.active, "weighted": key.weight > 1, "of a model": request.model,
                 "preferred": request.affinity, "fill_first": pool.provider.strategy == "fill_first", "under a quota": pool.quotas_of(key, request.model)}
        return [kind for kind, is_so in kinds.items() if is_so]

    # That the key is the first of those that are free, by a newest turn that the session may have seen. Answers its new turn.
    def expect_turn(self, function, pool, request, free, key):
        belief = self.beliefs[pool.provider.name]
        orders = belief.orders(pool, request.model, self.clock)
        numbers = belief.numbers(pool, orders)
        turn = turn_of(self.cursor, key.id)
        moves = step_of(key) if function != "peek" else 0
        right = {number for number in numbers if first_of(free, number) is key and
                 (function == "peek" or turn == standing(key, number) + moves)}
        if not right:
            stand = [(other.id, other.priority, other.weight, other.meter.turn) for other in free]
            raise Difference(f"{function}: turn\n#   got {key.id}, turn {turn}\n#   newest {sorted(numbers)}\n#   free {stand}")
        if any(standing(key, number) != key.meter.turn for number in right):
            self.note("behind")
        # Who peeks at the keys that it prefers takes no part in turns.
        seen = numbers if function == "peek" and request.affinity else {max(number, standing(key, number) + moves) for number in right}
        belief.set(pool, orders, seen)
        return turn

    # -- settling

    # A lease that was handed out some time, of a key that is still there; mostly a late one.
    def some_lease(self):
        keys = {key.id: (pool, key) for pool, key in self.all_keys()}
        known = [pair for pair in list(self.leases)[-40:] if pair[0].key_id in keys]
        if not known:
            return None
        lease, text = self.random.choice(known)
        return *keys[lease.key_id], lease, text

    # Whose call is to be settled: (pool, key, lease, its text)
    def some_call(self, with_lease):
        call = self.some_lease() if self.random.random() < with_lease else None
        return call or (*self.some_key(), None, None)

    def kind_of(self, key, lease):
        second = key.meter.second(self.clock)
        if lease is None:
            return "none"
        if is_old(lease, self.clock):
            return "old lease"
        if second - lease.second >= 64:
            return "late lease"
        slot = key.meter.recorded.at(lease.second)
        return "settled lease" if slot and lease.sequence in slot.settled else "lease"

    def record(self):
        return self.record_call(*self.some_call(0.7), self.random.choice(MODELS))

    def record_call(self, pool, key, lease, text, model):
        draw = self.random
        used = Used(draw.choice((None, 0, 1, 50, 100, 999, -5)), draw.choice((None, None, *PARTS)),
                    draw.choice((None, None, *PARTS)), draw.choice((None, 0, 3, 90)))
        self.note(f"record {self.kind_of(key, lease)}")
        got = self.run("SELECT keypool_record(%s, %s, %s, %s, %s, %s, %s)", key.id, used.tokens, text, used.output,
                       used.cached, used.cost, model or None)
        self.expect("record", (pool.record(key, self.clock, used, lease, model),), got)
        return pool

    def release(self):
        call = self.some_lease()
        if call is None:
            return None
        pool, key, lease, text = call
        self.note("release open" if self.kind_of(key, lease) == "lease" else "release closed")
        got = self.run("SELECT keypool_release(%s, %s)", key.id, text)
        self.expect("release", (pool.release(key, self.clock, lease),), got)
        return pool

    def mark_429(self):
        return self.mark_call(*self.some_call(0.4))

    def mark_call(self, pool, key, lease, text):
        seconds = self.random.choice((None, -3, 0, 0.5, 1, 1.5, 5, 5, 29.999999, 30, 90, 100_000, math.nan))
        names = [quota.name for quota in pool.quotas.values()]
        scope = self.random.choice((None, None, "quota", "key", "model", "account", *(f"quota:{name}" for name in names)))
        model = self.random.choice(MODELS)
        is_bad = lease is None and self.random.random() < 0.2
        got = self.run("SELECT keypool_mark_429(%s, %s, %s, %s, %s)", key.id, seconds, "no lease" if is_bad else text, scope,
                       model or None)
        asked = None if seconds is not None and math.isnan(seconds) else seconds
        blamed = pool.blamed(pool.limited_by(key, lease, model), scope, (lease.model if lease else "") or model)
        self.expect("mark_429", pool.mark_429(key, self.clock, asked, lease, scope, model, is_bad), micros(got[0]))
        one, its_model = blamed[0]
        self.note("mark_429 lease" if lease else "mark_429 bad lease" if is_bad else "mark_429 none",
                  "blocked a model" if its_model else "blocked a quota" if isinstance(one, Quota) else "blocked a key")
        return pool

    # What the provider answered to a call, mostly one that has just been selected.
    def report(self):
        call = self.some_lease() if self.random.random() < 0.9 else (*self.some_key(), None, None)
        if call is None:
            return None
        pool, key, lease, text = call
        status = self.random.choice(STATUSES)
        error_code = self.random.choice(("timeout", "broken", "cancelled", *(("connect",) if lease else ()))) if status is None else None
        retry_after = self.random.choice((None, 1, 20, 4000)) if status == 429 else None
        tokens = self.random.choice((None, 0, 50, 999))
        before = {one.id: one.meter.breaker for one in (key, *pool.quotas.values())}
        got = self.run("SELECT class, action, retry_after_ms, settled FROM keypool_report(%s, %s, %s, %s, %s, tokens => %s)", key.id, text,
                       status, retry_after and f"retry-after: {retry_after}", error_code, tokens)
        self.expect("report", pool.report(key, self.clock, lease, status, error_code, retry_after, tokens), got)
        self.note(f"report {got[0]}", *(event for one in (key, *pool.quotas.values())
                                        for event in breaker_events(before[one.id], one.meter, self.clock)))
        return pool

    def clear_cooldown(self):
        return self.clear_key(*self.some_key())

    def clear_key(self, pool, key):
        self.expect("clear", ("",), self.run("SELECT keypool_clear_cooldown(%s)::text", key.id))
        key.keep_up(self.clock)
        key.meter.clear_blocks(self.clock)
        self.note("clear_cooldown")
        return pool

    def clear_cooldown_of_quotas(self):
        pool = self.some_pool()
        return self.clear_quotas(pool, self.random.choice((None, *pool.quotas.values())))

    def clear_quotas(self, pool, quota):
        name = quota.name if quota else None
        self.expect("clear", ("",), self.run("SELECT keypool_clear_cooldown(%s, %s)::text", pool.provider.name, name))
        for one in [quota] if quota else pool.quotas.values():
            one.keep_up(self.clock)
            one.meter.clear_blocks(self.clock)
        self.note("clear_cooldown of quotas")
        return pool

    # -- time

    def clock_forward(self):
        unit = self.random.choice((1, 1000, SECOND, SECOND, SECOND, 10 * SECOND, 60 * SECOND))
        self.set_clock(self.clock + self.random.randrange(1, 7) * unit + self.random.choice((0, 0, 1, 999_999)))
        self.note("clock forward")

    # By hours; or to the end of a day or a month, or to where a key comes on or goes off by itself, or just before that.
    def clock_far_forward(self):
        ends = [end * SECOND for end in period_ends(self.random.choice(ZONES), self.clock)]
        moments = [moment for _, key in self.all_keys() for moment in key.moments() if moment > self.clock]
        end = self.random.choice(self.random.choice((ends, moments or ends)))
        far = self.random.choice((self.clock + self.random.randrange(1, 9) * 3600 * SECOND, end, end - 1, end + SECOND))
        self.set_clock(far)

    def clock_back(self):
        self.set_clock(self.clock - self.random.choice((1, 1000, SECOND, 5 * SECOND, 30 * SECOND, 200 * SECOND)))
        self.note("clock back")

    def clock_far_back(self):
        self.set_clock(self.clock - self.random.choice((601, 700, 3000, 9000, 100_000)) * SECOND)
        self.note("clock far back")

    def usage(self):
        pool, key = self.some_key()
        minutes = self.random.choice((1, 2, 10, 60))
        self.run("SELECT 1")
        self.cursor.execute("SELECT extract(epoch FROM window_minute)::bigint / 60, request_count, token_count,"
                            " rate_limited_count FROM keypool_usage(%s, %s)", (key.id, minutes))
        self.expect("usage", key.usage(self.clock, minutes), self.cursor.fetchall())
        self.note("usage")
        return pool

    # -- the walk

    def compare_lists(self, pool):
        for what, lister, ours in (("keys", list_keys, pool.sorted_keys()), ("quotas", list_quotas, pool.sorted_quotas())):
            expected, got = [one.listed(self.clock) for one in ours], lister(self.cursor, pool.provider.name)
            for theirs, its in zip(expected, got):
                self.expect(f"{what} of {pool.provider.name}", theirs, its)
            self.expect(f"number of {what} of {pool.provider.name}", len(expected), len(got))

    # Where a meter needs upkeep, the next call that looks at it does that, and no test can tell at which keys a selection
    # looks. So each of these meters is used now, before the clock moves on.
    def tend(self):
        while pending := [(pool, one) for pool in self.pools.values() for one in (*pool.keys.values(), *pool.quotas.values())
                          if one.needs_upkeep(self.clock)]:
            pool, one = self.random.choice(pending)
            if isinstance(one, Key):
                self.use_key(pool, one)
            else:
                self.clear_quotas(pool, one)

    def use_key(self, pool, key):
        use = self.random.randrange(4)
        if use == 0:
            self.clear_key(pool, key)
        elif use == 1:
            self.mark_call(pool, key, None, None)
        else:
            self.record_call(pool, key, None, None, self.random.choice(MODELS))

    # What is done, and how often.
    STEPS = Configuring.STEPS | {
        select: 50, record: 16, release: 5, report: 9, mark_429: 2, clear_cooldown: 1, clear_cooldown_of_quotas: 0.5, usage: 1,
        clock_forward: 14, clock_far_forward: 0.4, clock_back: 0.5, clock_far_back: 0.05}

    def step(self):
        action = self.random.choices(list(self.STEPS), list(self.STEPS.values()))[0]
        pool = action(self) or self.some_pool()
        if any(one.needs_upkeep(self.clock) for one in self.all_limited()):
            if action in (History.clock_back, History.clock_far_back):
                self.compare_lists(pool)
            if self.random.random() < 0.5:
                self.select()
            self.tend()
        self.compare_lists(pool)
