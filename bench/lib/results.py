# results.py - what a case found: one line of the table, with its target.
import json
import os
import statistics
import sys

ROUNDS = int(os.environ.get("ROUNDS", 5))
SECONDS = int(os.environ.get("SECONDS_PER_RUN", 3))


def emit(line):
    print(json.dumps(line), flush=True)


# The result of one measurement: its median, smallest and largest value. `target` is ("at least" or "at most", number), or None.
def result(case, what, values, unit="ratio", target=None, note=""):
    values = sorted(values)
    line = {"case": case, "what": what, "unit": unit, "median": statistics.median(values), "low": values[0], "high": values[-1],
            "target": target, "note": note}
    emit(line)
    print(f"{case}: {what}: {line['median']:.4g} {unit}", file=sys.stderr, flush=True)


def not_measured(case, why):
    emit({"case": case, "what": f"not measured: {why}"})
    print(f"{case}: not measured: {why}", file=sys.stderr, flush=True)


def clients_text(clients):
    return "1 client on one processor" if clients == 1 else f"{clients} clients"


# A rate for a note.
def rate(values):
    value = statistics.median(values)
    return f"{value:,.0f}/s" if value >= 100 else f"{value:.1f}/s"


# Runs each of several measurements once a round, in turns, and every other round backwards, so that what drifts over time
# touches all of them alike. Answers the values of each, by round.
def in_turns(measurements):
    values = {name: [] for name in measurements}
    for number in range(ROUNDS):
        names = list(measurements)
        for name in names if number % 2 == 0 else reversed(names):
            values[name].append(measurements[name]())
    return values


# The ratio of two of them, round by round.
def compared(case, what, values, ours, theirs, target=None, note=""):
    ratios = [a / b for a, b in zip(values[ours], values[theirs])]
    result(case, what, ratios, target=target, note=f"{rate(values[ours])} and {rate(values[theirs])}{note}")
