#!/usr/bin/python3
# check_quotas.py - says whether a history of selections kept limits that several keys share. Shares no code with keypool.
#
#   check_quotas.py LIMITS <HISTORY
#
# HISTORY has a line `from,to,key,model` for each selection, in seconds: it happened somewhere between the two; a fifth field says
# until when its call surely was in flight. LIMITS is a JSON list. {"name": n, "models": shell pattern, "seconds": s, "max": m,
# "expected": e}: in no interval of so many seconds more than `max` selections of such models surely happened, and in all of the
# history (where `expected` is given) at least 99.5 % of that many. {"name": n, "models": shell pattern, "in_flight": m}: at no moment
# more calls than that were surely in flight. "keys", a shell pattern too, narrows either to some keys. Prints TAP.
import csv
import fnmatch
import json
import sys


# The most that surely happened in an interval of a length.
def most_within(selections, seconds):
    ends = sorted(end for _, end, _ in selections)
    most = 0
    for start in sorted(start for start, _, _ in selections):
        # All that begin from here on, and end in time.
        most = max(most, sum(1 for begin, end, _ in selections if begin >= start and end <= start + seconds))
        if ends[-1] <= start + seconds:
            break
    return most


# The most that surely were in flight at once.
def most_in_flight(selections):
    changes = sorted([(end, 1) for _, end, _ in selections] + [(until, -1) for _, _, until in selections])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def judge(limit, history):
    selections = [(start, end, until) for start, end, key, model, until in history
                  if fnmatch.fnmatchcase(model, limit["models"]) and fnmatch.fnmatchcase(key, limit.get("keys", "*"))]
    if "in_flight" in limit:
        most = most_in_flight(selections)
        return [(most <= limit["in_flight"], f"{limit['name']}: at most {limit['in_flight']} in flight ({most})")]
    most = most_within(selections, limit["seconds"]) if selections else 0
    results = [(most <= limit["max"], f"{limit['name']}: at most {limit['max']} in {limit['seconds']} s ({most})")]
    if "expected" in limit:
        enough = len(selections) >= 0.995 * limit["expected"]
        results.append((enough, f"{limit['name']}: {len(selections)} of {limit['expected']} that could be"))
    return results


def main():
    limits = json.loads(sys.argv[1])
    history = [(float(start), float(end), key, model, float(until[0]) if until else 0)
               for start, end, key, model, *until in csv.reader(sys.stdin)]
    number = failed = 0
    for good, name in (result for limit in limits for result in judge(limit, history)):
        number += 1
        failed += not good
        print(f"{'ok' if good else 'not ok'} {number} - {name}")
    print(f"1..{number}")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
