#!/usr/bin/python3
# check_quotas.py - says whether a history of selections kept limits that several keys share. Shares no code with keypool.
#
#   check_quotas.py LIMITS <HISTORY
#
# HISTORY has a line `from,to,key,model` for each selection, in seconds: it happened somewhere between the two. LIMITS is a JSON list
# of {"name": n, "models": shell pattern, "seconds": s, "max": m, "expected": e}: in no interval of so many seconds more than `max`
# selections of such models surely happened, and in all of the history (where `expected` is given) at least 99.5 % of that many.
# Prints TAP.
import csv
import fnmatch
import json
import sys


# The most that surely happened in an interval of a length.
def most_within(selections, seconds):
    ends = sorted(end for _, end in selections)
    most = 0
    for start in sorted(start for start, _ in selections):
        # All that begin from here on, and end in time.
        most = max(most, sum(1 for begin, end in selections if begin >= start and end <= start + seconds))
        if ends[-1] <= start + seconds:
            break
    return most


def main():
    limits = json.loads(sys.argv[1])
    history = [(float(start), float(end), model) for start, end, _, model in csv.reader(sys.stdin)]
    number = failed = 0
    for limit in limits:
        selections = [(start, end) for start, end, model in history if fnmatch.fnmatchcase(model, limit["models"])]
        most = most_within(selections, limit["seconds"]) if selections else 0
        results = [(most <= limit["max"], f"{limit['name']}: at most {limit['max']} in {limit['seconds']} s ({most})")]
        if "expected" in limit:
            enough = len(selections) >= 0.995 * limit["expected"]
            results.append((enough, f"{limit['name']}: {len(selections)} of {limit['expected']} that could be"))
        for good, name in results:
            number += 1
            failed += not good
            print(f"{'ok' if good else 'not ok'} {number} - {name}")
    print(f"1..{number}")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
