# test_serial.py - several sessions at once: what they are answered can be had from one session, call after call.
#
# In many short rounds the sessions call keypool on a few keys, mostly under one quota, under a clock that moves between rounds
# only. Then an order of the calls is looked for that the reference model explains (serial_order.py). Makes a database of its
# own. Prints TAP.
#
# A statement holds one call or several: one says more about what came before what, and its lease can be used in the same
# round; several follow each other so quickly that sessions meet within keypool, not only on the way to it.
#
# Rounds are played in games: new keys, and a seed which says what is called. Who overlaps whom is left to the machine, so a
# seed repeats the calls of a game that failed (`--seed N`), but perhaps not its failure.
import collections
import dataclasses
import random
import select
import sys
import time
from dataclasses import dataclass

import psycopg2
from psycopg2.extensions import POLL_OK
from psycopg2.extras import wait_select

from keypool_model import Pool
from keypool_server import (START, Tap, clock_text, connect, connect_to_new, list_keys, list_quotas, micros, note_experiment,
                            read_options, rounds)
from limited_model import Provider
from meter_model import TRACKED
from serial_order import Call, SharedKey, SharedQuota, State, TooManyStates, explain, without_twins
from slots_model import SECOND

DATABASE = "keypool_serial"
PROVIDER = "serial"
SHAPES = ((4, 3, 1), (8, 1, 1), (2, 1, 8), (2, 1, 8), (3, 1, 4), (4, 1, 3))  # sessions, statements of each, calls of each
SESSIONS = max(sessions for sessions, _, _ in SHAPES)
MOST_CALLS = max(sessions * statements * calls for sessions, statements, calls in SHAPES)
ROUNDS_OF_A_GAME = 25
MANY_STATES = 10  # more than these are too many to go on with
KINDS = {"select": 50, "record": 20, "release": 10, "report": 16, "mark_429": 6, "clear_cooldown": 4}
STATUSES = (200, 200, 402, 402, 429, 503)  # whose effect is one step: what may open half of the breakers only is two
GATE = 1  # an advisory lock
CALL_TIMEOUT = 60   # seconds: the shortest
FORGOTTEN = 65      # seconds after which nothing counts
DUE = 3601          # seconds after which a breaker that a 402 has opened is due
SELECT = ("SELECT key_id::text, status, retry_after_ms, blocked_by, blocked_limit, lease, NULL"
          " FROM keypool_try_select(%(provider)s, %(tokens)s)")
NOTHING = ", NULL, NULL, NULL, NULL, NULL, NULL"
ROWS = {
    "gate": "SELECT NULL::text, NULL::text, NULL::bigint, NULL::text, NULL::text, NULL::text, NULL::timestamptz"
            " FROM pg_advisory_xact_lock_shared(%(gate)s)",
    "select": SELECT,
    "record": f"SELECT keypool_record(%(key_id)s, %(tokens)s, %(lease)s)::text{NOTHING}",
    "release": f"SELECT keypool_release(%(key_id)s, %(lease)s)::text{NOTHING}",
    "mark_429": "SELECT NULL, NULL, NULL, NULL, NULL, NULL,"
                " keypool_mark_429(%(key_id)s, %(seconds)s, %(lease)s, %(scope)s)",
    "report": "SELECT class, action, retry_after_ms, settled::text, NULL, NULL, NULL"
              " FROM keypool_report(%(key_id)s, %(lease)s, %(status)s, tokens => %(tokens)s)",
    "clear_cooldown": f"SELECT keypool_clear_cooldown(%(key_id)s)::text{NOTHING}",
}


class Sessions:
    """Connections that one loop serves: so no thread waits for another, and what they do is done by the server's processes.

    A statement waits at a gate, which opens when all sessions have sent their first; then it does its calls in their order."""

    def __init__(self, number):
        self.gate = connect(DATABASE).cursor()
        self.connections = [connect(DATABASE, async_=True) for _ in range(number)]
        for connection in self.connections:
            wait_select(connection)
        self.cursors = [connection.cursor() for connection in self.connections]
        self.by_descriptor = {connection.fileno(): i for i, connection in enumerate(self.connections)}
        self.poll = select.poll()
        for descriptor in self.by_descriptor:
            self.poll.register(descriptor, select.POLLIN)

    def everywhere(self, sql, *arguments):
        for cursor in self.cursors:
            cursor.execute(sql, arguments)
        for connection in self.connections:
            wait_select(connection)

    # Plays a round: the statements of each session one after the other, all sessions at once. `arguments` is asked for a
    # call's arguments when its statement begins, and `answered` is told its row, or its SQLSTATE, when that has ended.
    def play(self, plan, arguments, answered):
        waiting = {i: collections.deque(statements) for i, statements in enumerate(plan)}
        self.gate.execute("SELECT pg_advisory_lock(%s)", (GATE,))
        for i, statements in waiting.items():
            self.begin(i, statements[0], arguments)
        time.sleep(0.001)  # so that they come as far as the gate
        self.gate.execute("SELECT pg_advisory_unlock(%s)", (GATE,))
        while waiting:
            for descriptor, _ in self.poll.poll():
                i = self.by_descriptor[descriptor]
                if self.has_ended(i, waiting[i][0], answered):
                    self.go_on(i, waiting, arguments)

    def go_on(self, i, waiting, arguments):
        waiting[i].popleft()
        if waiting[i]:
            self.begin(i, waiting[i][0], arguments)
        else:
            del waiting[i]

    def begin(self, i, calls, arguments):
        cursor = self.cursors[i]
        given = [arguments(call) for call in calls]  # may change the kind
        rows = [cursor.mogrify(ROWS["gate"], {"gate": GATE})]
        rows += [cursor.mogrify(ROWS[call.kind], values) for call, values in zip(calls, given)]
        start = time.monotonic_ns()
        cursor.execute(b" UNION ALL ".join(rows))
        for call in calls:
            call.start = start

    # Whether a session's statement has ended; if so, tells what its calls were answered.
    def has_ended(self, i, calls, answered):
        try:
            if self.connections[i].poll() != POLL_OK:
                return False
            rows = self.cursors[i].fetchall()[1:]
        except psycopg2.Error as error:
            rows = [(error.pgcode,)] * len(calls)
        end = time.monotonic_ns()
        for call, row in zip(calls, rows):
            call.end = end
            answered(call, row)
        return True


class Game:
    """Some keys, perhaps under a quota, the states that they may be in, and rounds of calls on them."""

    def __init__(self, sessions, cursor, pool, clock):
        self.sessions = sessions
        self.cursor = cursor
        self.leases = collections.deque(maxlen=6)  # (number of the select, key's id, lease) of those that may be used
        self.insert(pool)
        self.states = [State(pool, clock, {})]
        self.set_clock(clock)

    def insert(self, pool):
        self.cursor.execute("DELETE FROM keypool.provider_keys; DELETE FROM keypool.quotas")
        self.cursor.execute("SELECT keypool_set_provider(%s, %s)", (PROVIDER, f'{{"call_timeout": {CALL_TIMEOUT}}}'))
        for key in pool.keys.values():
            self.insert_row("provider_keys", key, id=key.id, key_value=key.secret, priority=key.priority)
        for quota in list(pool.quotas.values()):
            quota.id = self.insert_row("quotas", quota, name=quota.name)
            pool.quotas = {quota.id: quota}

    # Answers its id.
    def insert_row(self, table, one, **columns):
        row = {**columns, "provider_id": PROVIDER, "account": one.account, **one.limits}
        self.cursor.execute(f"INSERT INTO keypool.{table} ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})"
                            " RETURNING id::text", tuple(row.values()))
        return self.cursor.fetchone()[0]

    def set_clock(self, clock):
        self.clock = clock
        self.cursor.execute("SET keypool.test_now = %s", (clock_text(clock),))
        self.sessions.everywhere("SET keypool.test_now = %s", clock_text(clock))
        usable = {number for number, _, _ in self.leases}
        self.states = without_twins(state.later(clock, usable) for state in self.states)

    # The most grants that a key has had in this second.
    def grants_now(self):
        slots = [key.meter.reserved.at(self.clock // SECOND) for key in self.states[0].pool.keys.values()]
        return max(slot.selected if slot else 0 for slot in slots)

    def has_open_breaker(self):
        pool = self.states[0].pool
        return any(one.meter.breaker.openings for one in (*pool.keys.values(), *pool.quotas.values()))

    # Plays a round; what states it may have led to is left to be found out.
    def play(self, plan):
        self.sessions.play(plan, self.begin, self.answered)
        calls = [call for statements in plan for calls in statements for call in calls]
        self.calls = sorted(calls, key=lambda call: (call.start, call.number))
        self.listed = list_keys(self.cursor, PROVIDER), list_quotas(self.cursor, PROVIDER)
        self.before = self.states

    # The states after some version of the round's calls; none if no order explains them.
    def explain(self, calls):
        return explain(self.before, calls, self.listed)

    # The arguments of a call that begins now, with a lease that is known now if it wants one. Without any known, a release
    # becomes a record.
    def begin(self, call):
        lease = None
        if call.pick is not None and self.leases:
            call.grant, call.key_id, lease = self.leases[int(call.pick * len(self.leases))]
        elif call.kind == "release":
            call.kind = "record"
        return {"provider": PROVIDER, "tokens": call.tokens, "seconds": call.seconds, "scope": call.scope,
                "status": call.status, "key_id": call.key_id, "lease": lease}

    def answered(self, call, row):
        call.answer = row
        if len(row) == 1:
            return
        key_id, status, wait, by, limit, lease, until = row
        if call.kind == "mark_429":
            call.answer = (micros(until),)
        elif call.kind == "clear_cooldown":
            call.answer = (key_id,)
        elif call.kind == "report":
            call.answer = (key_id, status, wait, by == "true")
        elif call.kind != "select":
            call.answer = (key_id == "true",)
        elif (status == "ok") == (lease is not None):
            call.answer = (key_id, status, wait, by, limit)
        if lease is not None and call.kept:
            self.leases.append((call.number, key_id, lease))


class Player:
    """Thinks up games and rounds, by a seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.pool = Pool(Provider(PROVIDER, call_timeout=CALL_TIMEOUT))
        self.account = self.random.choice((None, "org"))
        for number in range(self.random.choice((1, 2, 2, 3))):
            key = self.key(number)
            self.pool.keys[key.id] = key
        if self.random.random() < 0.7:
            self.pool.quotas[""] = SharedQuota("", self.pool.provider, self.limits((0, 2, 5, 20, 40)), name="shared",
                                               account=self.account)
        self.calls = 0

    def key(self, number):
        key_id = f"{self.random.getrandbits(32):08x}-0000-8000-8000-{number:012x}"
        return SharedKey(key_id, self.pool.provider, self.limits((0, 0, 1, 2, 5, 20)), secret=f"secret {key_id}",
                         account=self.account, priority=self.random.choice((0, 0, 0, 1)))

    def limits(self, rpm):
        drawn = {"max_rpm": self.random.choice(rpm), "max_tpm": self.random.choice((0, 0, 0, 100, 1000)),
                 "max_in_flight": self.random.choice((0, 0, 0, 1, 3))}
        return {limit: most for limit, most in drawn.items() if most}

    def plan(self):
        sessions, statements, calls = self.random.choice(SHAPES)
        return [[[self.call(session) for _ in range(calls)] for _ in range(statements)] for session in range(sessions)]

    def call(self, session):
        self.calls += 1
        kind = self.random.choices(list(KINDS), list(KINDS.values()))[0]
        call = Call(self.calls, session, kind, kept=self.random.random() < 0.2)
        call.tokens = self.random.choice((0, 1, 10, 100, 400)) if kind in ("select", "record", "report") else None
        call.status = self.random.choice(STATUSES) if kind == "report" else None
        call.seconds = self.random.choice((1, 5, 5, 30)) if kind == "mark_429" else None
        call.scope = self.scope() if kind == "mark_429" else None
        call.key_id = self.random.choice(list(self.pool.keys)) if kind != "select" else None
        if kind == "release" or kind in ("record", "mark_429", "report") and self.random.random() < 0.6:
            call.pick = self.random.random()
        return call

    def scope(self):
        return self.random.choice((None, "key", *(f"quota:{quota.name}" for quota in self.pool.quotas.values())))

    # Now and then the clock stands; where a breaker is open, it often moves to where that is due. But a second never gets more grants than keypool knows one by one, and when too many
    # states are possible, all grants leave the window, and with them most of the doubt.
    def pause(self, game):
        steps = (0, 0, 1000, SECOND, SECOND, 5 * SECOND, 20 * SECOND, FORGOTTEN * SECOND)
        if game.has_open_breaker():
            steps += (DUE * SECOND,) * len(steps)
        if len(game.states) > MANY_STATES or game.grants_now() > TRACKED - MOST_CALLS:
            steps = (FORGOTTEN * SECOND, DUE * SECOND)
        return self.random.choice(steps)


@dataclass
class Score:
    rounds: int = 0
    calls: int = 0
    overlapping: int = 0  # calls
    reordered: int = 0    # rounds that did not take effect in the order in which their calls began
    unexplained: int = 0  # rounds
    given_up: int = 0     # rounds

    # Judges a round that was played. False if too little is known now to play on.
    def add(self, game, seed):
        self.rounds += 1
        self.calls += len(game.calls)
        self.overlapping += count_overlapping(game.calls)
        try:
            return self.judge(game, seed)
        except TooManyStates:
            self.given_up += 1
            return False

    def judge(self, game, seed):
        game.states = game.explain(game.calls)
        if game.states:
            self.reordered += not game.explain(one_after_the_other(game.calls))
        else:
            self.unexplained += 1
            print_round(game, seed)
        return bool(game.states)


# How many calls overlap a call of another session.
def count_overlapping(calls):
    return sum(any(other.session != call.session and other.start < call.end and call.start < other.end for other in calls)
               for call in calls)


# The same calls, as if each had ended before the next began.
def one_after_the_other(calls):
    return [dataclasses.replace(call, start=2 * i, end=2 * i + 1) for i, call in enumerate(calls)]


def print_round(game, seed):
    print(f"# seed {seed}: no order explains these calls, at {clock_text(game.clock)}")
    for call in game.calls:
        print(f"#   {call}")
    for row in (*game.listed[0], *game.listed[1]):
        print(f"#   then   {row}")
    for number, state in enumerate(game.before[:3]):
        for one in (*state.pool.keys.values(), *state.pool.quotas.values()):
            print(f"#   before, {number + 1} of {len(game.before)}: {one.id} {one.limits} {vars(one.meter)}")


# Plays a game until it is over, or the time is, or a round leaves too little known. Answers what its clock says at the end.
def play_game(sessions, cursor, seed, clock, score, until):
    player = Player(seed)
    game = Game(sessions, cursor, player.pool, clock)
    for _ in range(ROUNDS_OF_A_GAME):
        game.play(player.plan())
        if not score.add(game, seed) or time.monotonic() > until:
            break
        game.set_clock(game.clock + player.pause(game))
    return game.clock


# A history that was recorded is explained, and is not when it is spoiled.
def check_the_checker(sessions, cursor, tap):
    pool = Pool(Provider(PROVIDER, call_timeout=CALL_TIMEOUT))
    for number in (1, 2):
        key = SharedKey(f"{number:08x}-0000-8000-8000-000000000000", pool.provider, secret=f"secret {number}")
        pool.keys[key.id] = key
    game = Game(sessions, cursor, pool, START)
    game.play([[[Call(number, 0, "select", tokens=1)] for number in range(3)]])
    tap.result(game.explain(game.calls), "the checker explains what one session was answered")
    first, second, _ = game.calls
    first.answer, second.answer = second.answer, first.answer
    tap.result(not game.explain(game.calls), "but not with two answers swapped")
    for session, call in enumerate(game.calls):
        call.session, call.start, call.end = session, 0, 1
    tap.result(game.explain(game.calls), "unless they are of three sessions at once")
    game.listed[0][0]["open_reservations"] -= 1
    tap.result(not game.explain(game.calls), "and not if a grant is missing at the end")


def report(tap, score):
    overlap = 100 * score.overlapping // score.calls
    few = max(5, score.rounds // 100)
    tap.result(score.unexplained == 0, "each round has a serial order that explains it")
    tap.result(score.given_up <= few, "almost no search was given up")
    tap.result(overlap >= 50 and score.reordered > 0, "the sessions were at work at the same time")
    print(f"# {score.reordered} rounds did not take effect in the order in which their calls began")
    print(f"# {score.given_up} rounds left too many possibilities")
    note_experiment("several sessions, some serial order",
                    f"{score.rounds} rounds, {score.calls} calls, {overlap} % overlapping",
                    f"{score.unexplained} rounds unexplained")


def main():
    options = read_options(rounds=rounds(500, 20_000), seconds=rounds(12, 600))
    tap, score, clock, seed = Tap(), Score(), START, options.seed
    cursor = connect_to_new(DATABASE).cursor()
    sessions = Sessions(SESSIONS)
    check_the_checker(sessions, cursor, tap)
    print(f"# games with the seeds from {seed}", flush=True)
    until = time.monotonic() + options.seconds
    while score.rounds < options.rounds and time.monotonic() < until:
        clock = play_game(sessions, cursor, seed, clock + SECOND, score, until)
        seed += 1
    report(tap, score)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
