# test_model.py - a long random history, compared step by step with the reference model.
#
# Makes a database of its own. Prints TAP. The steps are done in chunks, each on a new database and with a seed of its own,
# which is printed; `--seed N --steps 100000` repeats the chunk with that seed.
import collections
import json
import random
import sys

import psycopg2

from keypool_model import Key, Model, Refused, SECOND
from keypool_server import START, Tap, clock_text, connect_to_new, list_keys, micros, note_experiment, read_options, rounds

CHUNK = 100_000  # steps
PROVIDERS = ("alpha", "beta", "gamma")
TOKENS = (0, 0, 1, 10, 100, 100, 400, 999, 1000, 1001, 5000)
MUST_HAPPEN = ("select ok", "select KP429", "select KP404", "select KP413", "try_select ok", "try_select limited",
               "try_select cooling", "try_select no_key", "try_select too_large", "peek ok", "peek limited",
               "record lease", "record used lease", "record old lease", "record none", "release open",
               "release closed", "mark_429 lease", "mark_429 none", "clear_cooldown", "toggle on", "toggle off",
               "toggle for a time", "came back", "delete", "add", "limits", "clock forward", "clock back", "usage")


class Difference(Exception):
    pass


class History:
    def __init__(self, connection, seed, seen):
        self.random = random.Random(seed)
        self.connection = connection
        self.cursor = connection.cursor()
        self.model = Model()
        self.clock = START
        self.leases = []      # (the model's lease, the server's number), newest last
        self.deleted = []
        self.serial = 0
        self.steps = collections.deque(maxlen=20)
        self.seen = seen      # how often each event happened
        self.set_clock(START)
        for provider in PROVIDERS:
            for _ in range(5):
                self.add_key(provider)

    # One statement; answers its first row, or the SQLSTATE and the detail of its error.
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

    def note(self, event):
        self.seen[event] += 1

    def set_clock(self, clock):
        self.clock = clock
        self.run("SET keypool.test_now = %s", clock_text(clock))

    def some_key(self):
        return self.random.choice(list(self.model.keys.values()))

    # -- steps: each does one thing on both sides, and compares what came of it

    def add_key(self, provider=None):
        provider = provider or self.random.choice(PROVIDERS)
        self.serial += 1
        key_id = self.deleted.pop() if self.deleted and self.random.random() < 0.5 else self.new_id()
        rpm, tpm = self.limits()
        key = Key(key_id, provider, f"sk-{self.serial}", self.random.choice((0, 0, 0, 1, -5)), rpm, tpm)
        self.model.keys[key_id] = key
        got = self.run("INSERT INTO keypool.provider_keys (id, provider_id, key_value, priority, max_rpm, max_tpm)"
                       " VALUES (%s, %s, %s, %s, %s, %s)", key_id, provider, key.secret, key.priority, rpm or None, tpm)
        self.expect("add", None, got)
        self.note("add")
        return provider

    def new_id(self):
        return f"{self.random.getrandbits(32):08x}-0000-8000-8000-{self.serial:012x}"

    def limits(self):
        return self.random.choice((0, 1, 2, 5, 20)), self.random.choice((0, 0, 100, 1000, 3000))

    def select(self):
        provider, tokens = self.random.choice(PROVIDERS), self.random.choice(TOKENS)
        function = self.random.choices(("select", "try_select", "peek"), (4, 4, 2))[0]
        before = [k.active for k in self.model.of(provider)]
        got = self.run("SELECT key_id::text, key_value, status, retry_after_ms, lease, priority, max_rpm, max_tpm"
                       f" FROM keypool_{function}(%s, %s)", provider, tokens)
        try:
            answer = (self.model.select_or_raise(provider, tokens, self.clock) if function == "select" else
                      self.model.select(provider, tokens, self.clock, function == "try_select"))
        except Refused as refused:
            self.expect_refused(function, refused, got)
        else:
            self.expect_answer(function, answer, got)
        if function != "peek" and before != [k.active for k in self.model.of(provider)]:
            self.note("came back")
        return provider

    def expect_refused(self, function, refused, got):
        if not isinstance(got, psycopg2.Error):
            raise Difference(f"{function}: expected {refused.sqlstate}, got {got}")
        self.expect(f"{function}: SQLSTATE", refused.sqlstate, got.pgcode)
        if refused.sqlstate == "KP429":
            detail = json.loads(got.diag.message_detail)
            self.expect(function, {"status": refused.status, "retry_after_ms": refused.retry_after_ms}, detail)
        self.note(f"{function} {refused.sqlstate}")

    def expect_answer(self, function, answer, got):
        if isinstance(got, psycopg2.Error):
            raise Difference(f"{function}: expected {answer}, got {got.pgcode} {got}")
        status, key, lease, wait = answer
        secret = key.secret if key and function != "peek" else None
        limits = (key.priority, key.max_rpm or None, key.max_tpm or None) if key else (None, None, None)
        self.expect(function, (key.id if key else None, secret, status, wait, *limits), (*got[:4], *got[5:]))
        self.expect(f"{function}: has a lease", lease is not None, got[4] is not None)
        if lease is not None:
            self.leases.append((lease, got[4]))
            del self.leases[:-200]
        self.note(f"{function} {status}")

    # A lease that was granted some time, to a key that is still there; mostly a late one.
    def some_lease(self):
        known = [pair for pair in self.leases[-40:] if pair[0].key_id in self.model.keys]
        return self.random.choice(known) if known else (None, None)

    def lease_kind(self, lease):
        key = self.model.keys[lease.key_id]
        if key.is_open(lease, key.second(self.clock)):
            return "open"
        return "old" if lease.second < key.second(self.clock) - 60 else "used"

    def record(self):
        lease, number = self.some_lease() if self.random.random() < 0.7 else (None, None)
        key = self.model.keys[lease.key_id] if lease else self.some_key()
        tokens = self.random.choice((None, 0, 1, 50, 100, 999))
        kind = {None: "none", "open": "lease", "used": "used lease", "old": "old lease"}[
            self.lease_kind(lease) if lease else None]
        self.expect("record", ("",), self.run("SELECT keypool_record(%s, %s, %s)::text", key.id, tokens, number))
        key.record(self.clock, tokens or 0, lease)
        self.note(f"record {kind}")
        return key.provider

    def release(self):
        lease, number = self.some_lease()
        if lease is None:
            return None
        key = self.model.keys[lease.key_id]
        self.note("release open" if self.lease_kind(lease) == "open" else "release closed")
        self.expect("release", ("",), self.run("SELECT keypool_release(%s, %s)::text", key.id, number))
        key.release(self.clock, lease)
        return key.provider

    def mark_429(self):
        lease, number = self.some_lease() if self.random.random() < 0.4 else (None, None)
        key = self.model.keys[lease.key_id] if lease else self.some_key()
        seconds = self.random.choice((None, -3, 0, 0.5, 1, 1.5, 5, 5, 29.999999, 30, 90, 100_000))
        got = self.run("SELECT keypool_mark_429(%s, %s, %s)", key.id, seconds, number)
        self.expect("mark_429", key.mark_429(self.clock, seconds, lease), micros(got[0]))
        self.note("mark_429 lease" if lease else "mark_429 none")
        return key.provider

    def clear_cooldown(self):
        key = self.some_key()
        self.expect("clear", ("",), self.run("SELECT keypool_clear_cooldown(%s)::text", key.id))
        key.cooldown_until = None
        self.note("clear_cooldown")
        return key.provider

    def toggle(self):
        key = self.some_key()
        active = self.random.random() < 0.5
        seconds = self.random.choice((None, 1, 30, 90)) if not active else None
        self.expect("toggle", ("",), self.run("SELECT keypool_toggle_key(%s, %s, %s)::text", key.id, active, seconds))
        self.model.toggle(key.id, active, seconds, self.clock)
        self.note("toggle on" if active else "toggle for a time" if seconds else "toggle off")
        return key.provider

    # A whole provider is switched off, so that it has no active key left.
    def switch_off(self):
        provider = self.random.choice(PROVIDERS)
        for key in self.model.of(provider):
            seconds = self.random.choice((None, 20, 60))
            self.expect("switch off", ("",), self.run("SELECT keypool_toggle_key(%s, false, %s)::text", key.id, seconds))
            self.model.toggle(key.id, False, seconds, self.clock)
        return provider

    def switch_on(self):
        provider = self.random.choice(PROVIDERS)
        for key in self.model.of(provider):
            self.expect("switch on", ("",), self.run("SELECT keypool_toggle_key(%s, true)::text", key.id))
            self.model.toggle(key.id, True, None, self.clock)
        return provider

    def delete(self):
        if len(self.model.keys) < 10:
            return self.add_key()
        key = self.some_key()
        self.expect("delete", ("",), self.run("SELECT keypool_delete_key(%s)::text", key.id))
        del self.model.keys[key.id]
        self.leases = [pair for pair in self.leases if pair[0].key_id != key.id]
        self.deleted.append(key.id)
        self.note("delete")
        got = self.run("SELECT keypool_record(%s)", key.id)
        self.expect("record of a deleted key", "KP404", got.pgcode)
        return key.provider

    def change_limits(self):
        key = self.some_key()
        key.max_rpm, key.max_tpm = self.limits()
        key.priority = self.random.choice((0, 0, 1))
        got = self.run("UPDATE keypool.provider_keys SET max_rpm = %s, max_tpm = %s, priority = %s WHERE id = %s",
                       key.max_rpm, key.max_tpm or None, key.priority, key.id)
        self.expect("limits", None, got)
        self.note("limits")
        return key.provider

    def clock_forward(self):
        unit = self.random.choice((1, 1000, SECOND, SECOND, SECOND, 10 * SECOND, 60 * SECOND))
        self.set_clock(self.clock + self.random.randrange(1, 7) * unit + self.random.choice((0, 0, 1, 999_999)))
        self.note("clock forward")

    def clock_back(self):
        self.set_clock(self.clock - self.random.choice((1, 1000, SECOND, 5 * SECOND, 30 * SECOND, 200 * SECOND)))
        self.note("clock back")

    def usage(self):
        key = self.some_key()
        minutes = self.random.choice((1, 2, 10, 60))
        self.run("SELECT 1")
        self.cursor.execute("SELECT extract(epoch FROM window_minute)::bigint / 60, request_count, token_count,"
                            " rate_limited_count FROM keypool_usage(%s, %s)", (key.id, minutes))
        self.expect("usage", key.usage(self.clock, minutes), self.cursor.fetchall())
        self.note("usage")

    # -- the walk

    def compare_lists(self, provider):
        got = list_keys(self.cursor, provider)
        expected = [key.listed(self.clock) for key in self.model.of(provider)]
        for theirs, ours in zip(expected, got):
            self.expect(f"list of {provider}", theirs, ours)
        self.expect(f"number of keys of {provider}", len(expected), len(got))

    def forget_the_old(self):
        horizon = min(key.second(self.clock) for key in self.model.keys.values()) - 600
        for key in self.model.keys.values():
            key.forget_before(horizon)

    STEPS = {select: 50, record: 16, release: 5, mark_429: 2, clear_cooldown: 2, toggle: 3, switch_off: 0.3,
             switch_on: 0.3, delete: 0.4, add_key: 0.4, change_limits: 1, clock_forward: 14, clock_back: 0.6, usage: 1}

    def step(self):
        action = self.random.choices(list(self.STEPS), list(self.STEPS.values()))[0]
        self.compare_lists(action(self) or self.random.choice(PROVIDERS))


# Walks so many steps on a new database. Answers how many were done, and whether all of them agreed with the model.
def walk(seed, steps, seen):
    print(f"# {steps} steps with seed {seed}", flush=True)
    connection = connect_to_new("keypool_model")
    history = History(connection, seed, seen)
    try:
        for number in range(steps):
            history.step()
            if number % 500 == 0:
                history.forget_the_old()
        return steps, True
    except Difference as difference:
        print(f"# seed {seed}, step {number}: {difference}\n# the last statements:")
        for clock, sql, arguments in history.steps:
            print(f"#   at {clock - START}: {sql} {arguments}")
        return number + 1, False
    finally:
        connection.close()


def main():
    options = read_options(steps=rounds(CHUNK, 10 * CHUNK))
    tap, seen, walked, differences = Tap(), collections.Counter(), 0, 0
    for seed, before in enumerate(range(0, options.steps, CHUNK), options.seed):
        steps, agree = walk(seed, min(CHUNK, options.steps - before), seen)
        walked += steps
        differences += not agree
        tap.result(agree, f"random steps agree with the model (seed {seed})")
    missing = [event for event in MUST_HAPPEN if not seen[event]]
    tap.result(differences or not missing, "everything that can happen did")
    print(f"# {', '.join(f'{event}: {seen[event]}' for event in sorted(seen))}")
    if missing:
        print(f"# never: {', '.join(missing)}")
    note_experiment("reference model, one session", f"{walked} steps", f"{differences} differences")
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
