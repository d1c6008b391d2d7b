# meter_model.py - what one meter of keypool should do: counts by second, day and month, calls in flight, blocks.
#
# Times are microseconds since 1970, seconds and minutes whole ones; 0: never. Nothing here is shared with the extension.
from typing import NamedTuple

from breaker_model import SUSPECT, Breaker
from slots_model import SECOND, Amounts, Open, Period, Recorded, Reserved, Ring, less, sum_of

DAY = 86_400           # seconds
WINDOW = 60            # slots: at slot n the window is the slots n-60 .. n
TRACKED = 63           # selections of one second that are known one by one
CLOCK_LEAD = 600       # seconds: a clock that is further behind what was seen was wrong then
BLOCKED_MODELS = 8
UNITS = {  # of the limits, in the order in which they are told
    "max_rpm": "requests", "max_tpm": "tokens", "max_output_tpm": "output", "max_rph": "requests", "max_tph": "tokens",
    "max_rpd": "requests", "max_tpd": "tokens", "max_requests_per_month": "requests", "max_tokens_per_month": "tokens",
    "max_cost_per_day": "cost", "max_cost_per_month": "cost", "max_in_flight": "requests",
}
LIMITS = tuple(UNITS)
OF_A_DAY = ("max_rpd", "max_tpd", "max_cost_per_day")
OF_A_MONTH = ("max_requests_per_month", "max_tokens_per_month", "max_cost_per_month")


class Refusal(NamedTuple):
    """Why a meter does not admit a request. Of two that end at the same time a cooldown is told first."""
    guess: int    # when to come back, as somebody is told
    moment: int   # when it admits the request if nothing else happens
    what: str     # a limit's name, "cooldown" or "breaker"

    @property
    def cools(self):
        return self.what == "cooldown"


class Meter:
    def __init__(self, width, timeout):
        self.width = width      # seconds of a slot of `recorded`
        self.timeout = timeout  # seconds after which a call that nobody settles is taken for ended
        self.last_used = self.last_429 = self.last_selected = 0
        self.blocked_until = 0
        self.models = (("", 0),) * BLOCKED_MODELS  # models that are blocked, and until when
        self.total_requests = 0
        self.total = Amounts()
        self.day, self.month = Period(), Period()
        self.minutes = {}       # minute -> (requests, tokens, 429s)
        self.recorded, self.reserved, self.open = Ring(64), Ring(64), Ring(16)
        self.turn = 0
        self.breaker = Breaker()

    def copy(self):
        twin = object.__new__(Meter)
        twin.__dict__.update(self.__dict__)
        for name in ("recorded", "reserved", "open"):
            ring = getattr(self, name)
            setattr(twin, name, Ring(ring.size, ring))
        twin.minutes = dict(self.minutes)
        return twin

    # -- its own clock: the newest time that it has seen counts as now if the clock is behind it

    def now(self, clock):
        return max(clock, self.last_used, self.last_429, self.last_selected)

    def second(self, clock):
        return self.now(clock) // SECOND

    # -- what it holds

    # Calls that are open are kept in slots so wide that the 16 newest reach back over the timeout.
    def open_width(self):
        return -(-self.timeout // 15)

    def open_calls(self, clock):
        newest = self.second(clock) // self.open_width()
        return Open(*map(sum, zip(Open(), *(slot for _, slot in self.open.among(newest, 16)))))

    def window(self, clock, unit):
        return sum(amount for _, amount in self.in_window(clock, unit))

    # (when it leaves, how much) of what counts in the window.
    def in_window(self, clock, unit):
        newest = self.second(clock) // self.width
        slots = self.recorded.among(newest, WINDOW + 1)
        if self.width > 1:
            return self.leaving(slots, unit) + self.in_flight(clock, unit)
        return self.leaving(slots, unit) + self.leaving(self.reserved.among(newest, WINDOW + 1), unit)

    def leaving(self, slots, unit):
        return [((number + WINDOW + 1) * self.width * SECOND, getattr(slot, unit)) for number, slot in slots]

    def in_flight(self, clock, unit):
        width = self.open_width()
        slots = self.open.among(self.second(clock) // width, 16)
        return [((number + 16) * width * SECOND, getattr(slot, unit)) for number, slot in slots]

    def in_period(self, period, clock, unit, rule):
        if period.end <= self.second(clock):
            return []
        amount = {"requests": period.requests, "tokens": rule.tokens_of(period.used), "cost": period.used.cost}[unit]
        return [(period.end * SECOND, amount)]

    # With the calls that are open.
    def use_of_period(self, period, clock, unit, rule):
        return sum(n for _, n in self.in_period(period, clock, unit, rule)) + getattr(self.open_calls(clock), unit)

    # What counts against a limit of `of`.
    def against(self, limit, of, clock):
        unit = UNITS[limit]
        if limit in OF_A_MONTH:
            return self.in_period(self.month, clock, unit, of.rule) + self.in_flight(clock, unit)
        if limit in OF_A_DAY and not of.rolling:
            return self.in_period(self.day, clock, unit, of.rule) + self.in_flight(clock, unit)
        return self.in_flight(clock, unit) if limit == "max_in_flight" else self.in_window(clock, unit)

    # -- may it serve a request, and if not, when

    # The first moment with room for so much more.
    def first_room(self, limit, of, more, now):
        most = of.limits[limit]
        entries = sorted(self.against(limit, of, now))
        use, moment = sum(amount for _, amount in entries), now
        for leaves, amount in entries:
            if use < most and use + more <= most:
                break
            use, moment = use - amount, leaves
        return moment

    def requests_in(self, second):
        return sum(slot.requests for slot in (self.recorded.at(second), self.reserved.at(second)) if slot)

    # In no interval of burst_seconds more than that share of max_rpm; one request alone is kept so far from the next.
    def burst_moment(self, of, now):
        second, apart = now // SECOND, of.burst
        share = -(-of.limits["max_rpm"] * apart // 60)
        if share == 1:
            last = self.last_selected
            for at in range(second, max(second - apart - 1, last // SECOND), -1):
                if self.requests_in(at):
                    return (at + apart + 1) * SECOND
            return last + apart * SECOND if last else now
        counts = [(at, self.requests_in(at)) for at in range(second - apart, second + 1)]
        requests, moment = sum(count for _, count in counts), now
        for at, count in counts:
            if requests < share:
                break
            requests, moment = requests - count, (at + apart + 1) * SECOND
        return moment

    # When somebody may have settled a call: by how often that happened in this minute and the one before.
    def next_settling(self, now):
        minute = now // (60 * SECOND)
        settled = sum(self.minutes[m][0] for m in (minute, minute - 1) if m in self.minutes)
        pause = (60 + now // SECOND % 60) * SECOND // settled if settled else SECOND
        return now + min(max(pause, SECOND // 100), SECOND)

    def blocked_for(self, model):
        return max([self.blocked_until] + [until for blocked, until in self.models if model and blocked == model])

    def obstacles(self, of, amounts, model, now):
        yield Refusal(self.blocked_for(model), self.blocked_for(model), "cooldown")
        yield Refusal(self.breaker.holds_until(now), self.breaker.holds_until(now), "breaker")
        asked = of.rule.asked(amounts)
        for limit in of.limits:
            moment = self.first_room(limit, of, asked[UNITS[limit]], now)
            guess = min(moment, self.next_settling(now)) if limit == "max_in_flight" else moment
            yield Refusal(guess, moment, limit)
            if limit == "max_rpm" and of.burst:
                moment = self.burst_moment(of, now)
                yield Refusal(moment, moment, limit)

    # None if it admits the request: else what is in the way for the longest.
    def refusal(self, of, amounts, model, clock):
        now = self.now(clock)
        found = [obstacle for obstacle in self.obstacles(of, amounts, model, now) if obstacle.moment > now]
        if not found:
            return None
        told = max(found, key=lambda obstacle: obstacle.guess)  # the first of equals
        return told._replace(moment=max(obstacle.moment for obstacle in found))

    # -- how it changes; `now` is at least its own clock

    # Answers the number of the selection in its second.
    def reserve(self, rule, estimates, now):
        second, held = now // SECOND, rule.tokens_of(estimates)
        slot = self.reserved.at(second) or Reserved()
        settled = (self.recorded.at(second) or Recorded()).settled if self.width == 1 else frozenset()
        sequence = min(max([slot.selected] + [number + 1 for number in settled]), TRACKED)
        self.reserved.put(second, Reserved(min(sequence + 1, TRACKED), slot.requests + 1, slot.tokens + held,
                                           slot.output + estimates.output))
        number = second // self.open_width()
        slot = self.open.at(number) or Open()
        self.open.put(number, Open(slot.requests + 1, slot.tokens + held, slot.cost + estimates.cost))
        self.last_selected = now
        return sequence

    # Takes a call that holds so much out of its second, and out of the calls that are open: if it was taken out before, which
    # is not always known, that frees another's place.
    def close(self, second, tokens, output, cost):
        slot, number = self.reserved.at(second), second // self.open_width()
        if slot and slot.requests:
            left = slot.requests - 1
            self.reserved.put(second, Reserved(slot.selected, left, less(slot.tokens, tokens) if left else 0,
                                               less(slot.output, output) if left else 0))
        slot = self.open.at(number)
        if slot and slot.requests:
            left = slot.requests - 1
            self.open.put(number, Open(left, less(slot.tokens, tokens) if left else 0,
                                       less(slot.cost, cost) if left else 0))

    # How many calls of a slot of those that are open are known by their second.
    def known_open(self, number, newest):
        return sum(slot.requests for second, slot in self.reserved.among(newest, 64) if second // self.open_width() == number)

    def close_estimates(self, rule, second, estimates):
        self.close(second, rule.tokens_of(estimates), estimates.output, estimates.cost)

    # An equal share of what is open.
    def close_share(self, second):
        tokens = output = cost = 0
        slot = self.open.at(second // self.open_width())
        if slot and slot.requests:
            tokens, cost = slot.tokens // slot.requests, slot.cost // slot.requests
        slot = self.reserved.at(second)
        if slot and slot.requests:
            tokens, output = slot.tokens // slot.requests, slot.output // slot.requests
        self.close(second, tokens, output, cost)

    # Marks a selection as settled. False if it was before.
    def settle_once(self, second, sequence, now):
        if 0 <= now // SECOND - second < 64 and sequence < TRACKED:
            slot = self.recorded.at(second) or Recorded()
            if sequence in slot.settled:
                return False
            self.recorded.put(second, slot._replace(settled=slot.settled | {sequence}))
        return True

    # The second of the oldest call that is open; one of before the last 64 seconds is known less precisely: by its
    # slot, which began before them. None: none is.
    def oldest_open(self, now):
        second, width = now // SECOND, self.open_width()
        if not any(slot.requests for _, slot in self.open.values()):
            return None
        known = sorted((at, slot.requests) for at, slot in self.reserved.among(second, 64) if slot.requests)
        for number, slot in sorted(self.open.among(second // width, 16)):
            if number * width > second - 64 or (known and number > known[0][0] // width):
                break
            if slot.requests > self.known_open(number, second):
                return min((number + 1) * width - 1, second - 64)
        return known[0][0] if known else None

    def count(self, rule, used, selected_in, ends, now):
        self.count_in_totals(used, ends, now)
        second, number = now // SECOND, now // SECOND // self.width
        slot = self.recorded.at(number) or Recorded()
        counts_now = self.width > 1 or selected_in >= second
        self.recorded.put(number, Recorded(slot.requests + counts_now, slot.tokens + rule.tokens_of(used),
                                           slot.output + used.output, slot.cost + used.cost, slot.settled))
        if not counts_now and second - selected_in <= WINDOW:
            slot = self.recorded.at(selected_in) or Recorded()
            self.recorded.put(selected_in, slot._replace(requests=slot.requests + 1))

    def count_in_totals(self, used, ends, now):
        self.count_in_minute(now, 1, used.tokens, 0)
        self.day = self.grown(self.day, ends[0], used, now // SECOND)
        self.month = self.grown(self.month, ends[1], used, now // SECOND)
        self.total_requests += 1
        self.total = sum_of(self.total, used)
        self.last_used = now

    # A meter that is ahead of the clock may be beyond the ends of the clock's day: by whole days.
    def grown(self, period, end, used, second):
        if period.end <= second:
            period = Period(end if end > second else end + (-(-(second + 1 - end) // DAY)) * DAY)
        return Period(period.end, period.requests + 1, sum_of(period.used, used))

    def count_in_minute(self, now, requests, tokens, rate_limited):
        minute = now // (60 * SECOND)
        self.minutes = {m: counts for m, counts in self.minutes.items() if m > minute - 60}
        was = self.minutes.get(minute, (0, 0, 0))
        self.minutes[minute] = (was[0] + requests, was[1] + tokens, was[2] + rate_limited)

    def block(self, until, now):
        self.count_in_minute(now, 0, 0, 1)
        self.last_429 = now
        self.blocked_until = max(self.blocked_until, until)
        return self.blocked_until

    # A ninth model at once blocks all.
    def block_model(self, model, until, now):
        own = [i for i, (blocked, its) in enumerate(self.models) if blocked == model and its]
        free = [i for i, (_, its) in enumerate(self.models) if its <= now]
        if not own and not free:
            return self.block(until, now)
        place = (own or free)[0]
        until = max(until, self.models[place][1] if own else 0)
        self.count_in_minute(now, 0, 0, 1)
        self.last_429 = now
        self.models = self.models[:place] + ((model, until),) + self.models[place + 1:]
        return until

    def clear_blocks(self, clock):
        self.blocked_until = 0
        self.models = (("", 0),) * BLOCKED_MODELS
        self.breaker = self.breaker.closed(self.now(clock))

    # A selection that is let through by a breaker that is due is its probe. Answers whether it is.
    def begin_probe(self, now):
        is_due = self.breaker.word(now) == "due"
        if is_due:
            self.breaker = self.breaker.probed(now)
        return is_due

    # The failure is not taken to be this meter's: it is out for a minute only.
    def suspect(self, failure, selected_in, now):
        if self.breaker.hears(selected_in):
            self.breaker = self.breaker.suspected(failure, now)
            self.blocked_until = max(self.blocked_until, now + SUSPECT * SECOND)

    def is_suspect(self, now):
        return self.breaker.is_suspect(now)

    # Until when what has failed is out; 0: it is not.
    def out_until(self, now):
        until = max(self.blocked_until, self.breaker.holds_until(now))
        return until if until > now else 0

    # -- upkeep: as it is configured, and after a clock that was far ahead once

    def clock_was_wrong(self, clock):
        return self.now(clock) - clock > CLOCK_LEAD * SECOND

    def needs_upkeep(self, width, timeout, clock):
        return (self.width, self.timeout) != (width, timeout) or self.clock_was_wrong(clock)

    def configure(self, width, timeout):
        if self.width != width:
            output = self.output_of_minute()
            self.width, self.recorded = width, Ring(64)
            self.fill(output)
        if self.timeout != timeout:
            self.timeout, self.open = timeout, Ring(16)
            self.sort_open(self.second(0))

    def output_of_minute(self):
        newest, oldest = (second // self.width for second in (self.second(0), self.second(0) - WINDOW))
        return sum(slot.output for _, slot in self.recorded.among(newest, newest - oldest + 1))

    # A ring of another width takes over the last hour, by minutes; one of seconds the last of them, as if they were now's.
    def fill(self, output):
        second = self.second(0)
        known = 2 if self.width == 1 else 60
        for minute, (requests, tokens, rate_limited) in sorted(self.minutes.items(), reverse=True):
            if minute > second // 60 - known and (requests or tokens or rate_limited):
                number = (second if self.width == 1 else minute * 60) // self.width
                slot = self.recorded.at(number) or Recorded()
                self.recorded.put(number, slot._replace(requests=slot.requests + requests, tokens=slot.tokens + tokens,
                                                        output=slot.output + output))
                output = 0

    # Of the calls that are open the last minute's are kept.
    def sort_open(self, newest):
        for second, slot in self.reserved.among(newest, WINDOW + 1):
            if slot.requests:
                was = self.open.at(second // self.open_width()) or Open()
                self.open.put(second // self.open_width(),
                              Open(was.requests + slot.requests, was.tokens + slot.tokens, was.cost))

    # What the window holds is moved to now; blocks and periods are cut.
    def move_to(self, ends, longest_block, clock):
        second = self.second(clock)
        if max(self.last_used, self.last_429) > clock:
            self.move_recorded(second, clock)
        if self.last_selected > clock:
            self.move_reserved(second, clock)
        latest = clock + longest_block
        self.blocked_until = min(self.blocked_until, latest)
        self.models = tuple((model, min(until, latest)) for model, until in self.models)
        self.breaker = self.breaker.cut(latest, clock)
        self.day = self.day._replace(end=min(self.day.end, ends[0]))
        self.month = self.month._replace(end=min(self.month.end, ends[1]))

    def move_recorded(self, second, clock):
        newest = max(self.last_used, self.last_429)
        held = [slot[:4] for _, slot in self.recorded.among(second // self.width, WINDOW + 1)]
        moved = Recorded(*map(sum, zip((0, 0, 0, 0), *held)))
        self.recorded = Ring(64)
        self.recorded.put(clock // SECOND // self.width, moved)
        minute, now = newest // (60 * SECOND), clock // (60 * SECOND)
        self.minutes = {m - minute + now: counts for m, counts in self.minutes.items() if m > minute - 60}
        self.last_used, self.last_429 = min(self.last_used, clock), min(self.last_429, clock)

    def move_reserved(self, second, clock):
        calls = self.open_calls(second * SECOND)
        held = [slot[1:] for _, slot in self.reserved.among(second, WINDOW + 1)]
        self.reserved, self.open = Ring(64), Ring(16)
        self.reserved.put(clock // SECOND, Reserved(0, *map(sum, zip((0, 0, 0), *held))))
        self.open.put(clock // SECOND // self.open_width(), calls)
        self.breaker = self.breaker.unprobed()
        self.last_selected = clock
