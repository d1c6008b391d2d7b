"""report.py - what the demo prints: the line while it runs, the tables and the verdict at the end."""

import collections
import json
import math
import os
import shutil
import statistics
import sys
import time

import psycopg2

from ledger import NO_LIMIT, Key, Ledger

BAR = 20
SHOWN_PROBLEMS = 5

# The pool by the original's own tables. A row of usage says no more than its minute.
POOL = """
    SELECT k.id, k.provider_id, k.key_label, k.priority, k.max_rpm, k.max_tpm,
           coalesce(extract(epoch FROM k.cooldown_until::timestamptz), 0),
           array_agg(extract(epoch FROM (w.window_minute || ':00+00')::timestamptz) + 60),
           array_agg(w.request_count), array_agg(w.token_count)
    FROM original.provider_keys k LEFT JOIN original.key_usage_window w ON w.key_id = k.id
    WHERE k.is_active GROUP BY k.id ORDER BY k.id
"""
TOTALS = "SELECT sum(total_requests), sum(total_tokens) FROM keypool_list_keys()"


def limit(value):
    return value if value is not None and value > 0 else NO_LIMIT


def usage_rows(ends, requests, tokens):
    return [(float(end), r, int(t)) for end, r, t in zip(ends, requests, tokens) if end is not None]


class Books:
    """The database as it was before the run: the keys that are on, and keypool's totals."""

    def __init__(self, accounts_path, imported_at):
        accounts = json.load(open(accounts_path, encoding="utf-8"))["accounts"]
        lost = {account["key_id"] for account in accounts if account["sealed_with_lost_key"]}
        with psycopg2.connect("") as connection, connection.cursor() as cursor:
            cursor.execute(POOL)
            keys = [Key(*row[:4], limit(row[4]), limit(row[5]), float(row[6]), usage_rows(*row[7:]))
                    for row in cursor if row[0] not in lost]
        connection.close()
        self.ledger = Ledger(keys, imported_at)
        self.totals = self.read_totals()

    @staticmethod
    def read_totals():
        with psycopg2.connect("") as connection, connection.cursor() as cursor:
            cursor.execute(TOTALS)
            totals = [int(value) for value in cursor.fetchone()]
        connection.close()
        return totals

    def recorded(self):
        """(requests, tokens) that keypool has counted since the start."""
        return tuple(now - before for now, before in zip(self.read_totals(), self.totals))


class ProgressLine:
    """Once a second; on a terminal in one place, else every other second as a line of its own."""

    def __init__(self, begin, end):
        self.begin, self.end, self.terminal = begin, end, sys.stdout.isatty()
        self.every = 1.0 if self.terminal else 2.0

    def print(self, served, sums):
        total, too_many, waiting, errors = sums
        second = min(self.end, max(self.begin, time.time())) - self.begin
        parts = "  ".join(f"{provider} {count}" for provider, count in served.items())
        line = f"  {second:3.0f}/{self.end - self.begin:.0f} s  429s {too_many}  waiting {waiting:<2}"
        line += (f"  errors {errors}" if errors else "") + f"  served {total}: {parts}"
        if self.terminal:
            width = min(100, shutil.get_terminal_size().columns) - 1
            print(f"\r{line:<{width}.{width}}", end="", flush=True)
        else:
            print(line, flush=True)

    def close(self):
        print(flush=True)


def can_print(text):
    try:
        text.encode(sys.stdout.encoding or "ascii")
        return True
    except UnicodeEncodeError:
        return False


def bar(used, there):
    full, empty = "█░" if can_print("█░") else "#."
    filled = min(BAR, math.floor(BAR * used / there + 0.5)) if there else 0
    return full * filled + empty * (BAR - filled)


def percentile(values, share):
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1] if len(values) > 1 else sum(values)


class Provider:
    """All that is said about one provider."""

    def __init__(self, name, ledger, logs, begin, end):
        self.name, self.ledger, self.begin = name, ledger, begin
        self.clients = len(logs)
        self.asked, self.served, self.tokens, self.too_many, self.wrong_key = (
            sum(getattr(log, field) for log in logs)
            for field in ("asked", "served", "tokens", "too_many", "wrong_key"))
        self.uses = [use for log in logs for use in log.uses]
        self.refusals = [refusal for log in logs for refusal in log.refusals]
        self.select_us = [value for log in logs for value in log.select_us]
        self.capacity = ledger.capacities(name, begin, end)

    def capacity_used(self):
        """(used, there, unit) in the unit that is nearer to its limit; None without limits."""
        sides = zip((self.served, self.tokens), self.capacity, ("requests", "tokens"))
        limited = [side for side in sides if side[1] != NO_LIMIT]
        return max(limited, key=lambda side: side[0] / max(side[1], 1), default=None)

    def line(self):
        used = self.capacity_used()
        if used:
            share = f"{bar(*used[:2])} {100 * used[0] / max(used[1], 1):3.0f} % of {short(used[1])} {used[2]}"
        else:
            share = "its keys have no limits"
        p50, p99 = percentile(self.select_us, 50), percentile(self.select_us, 99)
        return (f"  {self.name:<10}{self.clients:>4}{self.asked:>7}{self.served:>7}{len(self.refusals):>7}"
                f"{self.too_many:>5}  {share:<44}{p50:>6.0f}{p99:>7.0f}")

    def tier_lines(self):
        largest = max((use.estimate for use in self.uses), default=0)
        for priority, keys in self.ledger.tiers(self.name):
            served = sum(use.served for key in keys for use in key.uses)
            turns = self.ledger.turns(keys, self.begin, largest)
            fair = f"{min(turns)} to {max(turns)} grants to each of {len(turns)}" if any(turns) else "-"
            yield f"  {self.name:<10}{priority:>8}{len(keys):>6}{served:>8}   {fair}"


def short(number):
    return f"{number:,}" if number < 100000 else f"{number / 1000:,.0f}k"


class Result:
    HEAD = "  provider  clients asked served waited 429s  capacity used"
    TIER_HEAD = "  provider  priority  keys  served   turns of the keys that began half free, until one was full"
    NOTES = """\
  asked:    requests that came; what was not served was still waiting when the time was up.
  waited:   times that a client was told "limited" or "cooling", and slept for retry_after_ms.
  capacity: for every key that is on, its limit less what the original had used (which counts until 60 s
            after its minute), from the end of its cooldown on, again whenever a window has passed; in
            the unit nearer to its limit. Tokens too few for one more call stay unused.
  select:   as a client in Python measured it, {clients} processes on {cores} cores; an empty statement
            took {p50:.0f} and {p99:.0f} us beside it."""

    def __init__(self, books, logs, simulator, begin, end):
        self.books, self.logs, self.simulator = books, logs, simulator
        self.ledger = books.ledger
        self.ledger.add([use for log in logs for use in log.uses])
        by_provider = collections.defaultdict(list)
        for log in logs:
            by_provider[log.provider].append(log)
        self.providers = [Provider(name, self.ledger, group, begin, end)
                          for name, group in by_provider.items()]

    def print(self):
        """Print the tables and the verdict; True if every claim holds."""
        print(f"{self.HEAD:<76}select p50    p99 us")
        print("\n".join(provider.line() for provider in self.providers))
        print(self.notes() + "\n")
        print(self.TIER_HEAD)
        print("\n".join(line for provider in self.providers for line in provider.tier_lines()) + "\n")
        claims = list(self.claims())
        for holds, text in claims:
            print(f"  {'ok    ' if holds else 'FAILED'}  {text}")
        self.print_problems()
        return all(holds for holds, _ in claims)

    def notes(self):
        empty = [value for log in self.logs for value in log.empty_us]
        return self.NOTES.format(clients=len(self.logs), cores=os.cpu_count(),
                                 p50=percentile(empty, 50), p99=percentile(empty, 99))

    def total(self, field):
        return sum(getattr(log, field) for log in self.logs)

    def seen(self, field):
        return sum(counts.get(field, 0) for counts in self.simulator.values())

    def claims(self):
        served, tokens, too_many = self.total("served"), self.total("tokens"), self.total("too_many")
        yield too_many == self.seen("too_many") == 0, f"429s met: {too_many}; calls served: {served:,}"
        refusals = [refusal for provider in self.providers for refusal in provider.refusals]
        self.wrong = [refusal for refusal in refusals if self.ledger.is_wrong(refusal)]
        yield not self.wrong, (f"told to wait: {len(refusals)} times, {len(self.wrong)} of them "
                               "while a key had room, or for longer than needed")
        bad = self.total("wrong_key") + self.seen("unauthorized") + len(self.ledger.strangers)
        yield bad == 0, f"calls with a wrong secret or a key that is off: {bad}"
        counts = (served, tokens), (self.seen("served"), self.seen("tokens")), self.books.recorded()
        yield counts[0] == counts[1] == counts[2], (
            "requests and tokens as counted by clients, providers, keypool: "
            + ", ".join(f"{requests:,} and {tokens:,}" for requests, tokens in dict.fromkeys(counts)))
        errors = sum(len(log.errors) for log in self.logs)
        yield errors == 0, f"errors: {errors}; connections that a provider dropped (released): {self.total('dropped')}"

    def print_problems(self):
        problems = sorted({error for log in self.logs for error in log.errors})
        problems += [f"{r.provider}: {r.status}, retry after {r.retry_after_ms} ms, for {r.estimate} tokens"
                     for r in self.wrong]
        for problem in problems[:SHOWN_PROBLEMS]:
            print(f"          {problem}")
        if self.seen("close_calls"):
            print(f"  {self.seen('close_calls')} calls needed what the simulator forgives for the transit")
