#!/usr/bin/python3
# check_history.py - says whether what many clients logged is what keypool promises. Shares no code with keypool.
#
#   check_history.py KEYS LOG...
#
# KEYS is a JSON file, a list of {"time": t, "until": u, "key": id, "pool": p, "priority": n, "max_rpm": n, "max_tpm": n, "usable": bool}:
# what a key is from a change on that was begun at `time` and is known to be committed at `until`. LOG is what clients.py writes.
#
# A call happened somewhere between its `from` and `to`. So a breach is only what is one wherever the calls happened, and a
# sum of all that may have been.
#   window     no 60 seconds of a key hold more grants than max_rpm (given back ones do not count)
#   tokens     no 60 seconds of a key hold more tokens than max_tpm: what a request used counts when it is recorded, what it
#              reserved counts while it is open
#   idle       no call is refused while a key of the pool had room
#   order      no key is granted while one of a better priority had room
#   configured no key is granted after it was known to be deleted or switched off
# Prints TAP, and figures as comments.
import bisect
import collections
import json
import sys

WINDOW = 60
TIME_TO_ASK = 25  # seconds; 64 clients make some 20 calls a second for each pool


class Grant:
    def __init__(self, line):
        self.id, self.pool, self.key = line["grant"], line["pool"], line["key"]
        self.start, self.end, self.tokens = line["from"], line["to"], line["tokens"]
        self.settled = None  # its line, if it was settled

    def given_back(self):
        return self.settled is not None and self.settled["do"] == "release"


class Key:
    def __init__(self, key_id):
        self.id = key_id
        self.versions = []
        self.grants = []
        self.cooldowns = []  # (from, until)

    # What it may have been at some time between two moments.
    def may_be(self, start, end):
        found = []
        for version, after in zip(self.versions, self.versions[1:] + [None]):
            if version["time"] <= end and (after is None or after["until"] >= start):
                found.append(version)
        return found

    def may_cool(self, start, end):
        return any(begin <= end and until >= start for begin, until in self.cooldowns)

    # Requests that may count at some time between two moments: granted in the seconds from start-60 to end.
    def may_count(self, start, end):
        first = bisect.bisect_left(self.ends, int(start) - WINDOW)
        last = bisect.bisect_right(self.starts, end)
        return [g for g in self.grants[first:last]
                if not (g.given_back() and g.settled["to"] < start)]

    def close(self):
        self.grants.sort(key=lambda grant: grant.start)
        self.starts = [grant.start for grant in self.grants]
        latest = 0  # ends need not ascend; a bound that does is enough, since may_count() wants all that may count
        self.ends = []
        for grant in self.grants:
            latest = max(latest, grant.end)
            self.ends.append(latest)
        self.versions.sort(key=lambda version: version["time"])
        never = -float("inf")
        self.versions.insert(0, dict(self.versions[0], time=never, until=never, usable=False))  # not added yet

    # Whether it had room for a request for all of the time between two moments, whatever happened when.
    def surely_has_room(self, start, end, tokens):
        versions = self.may_be(start, end)
        if not all(v["usable"] for v in versions) or self.may_cool(start, end):
            return False
        counted = self.may_count(start, end)
        requests = len(counted)
        used = sum(self.may_use(grant, start) for grant in counted) + self.late_use(start)
        return all((not v["max_rpm"] or requests + 1 <= v["max_rpm"]) and
                   (not v["max_tpm"] or (used < v["max_tpm"] and used + tokens <= v["max_tpm"])) for v in versions)

    def may_use(self, grant, start):
        if grant.settled is None or grant.settled["to"] >= start:
            return grant.tokens
        return grant.settled.get("tokens", 0)

    # Tokens that were recorded in the window, of requests that were granted before it.
    def late_use(self, start):
        first = bisect.bisect_left(self.ends, int(start) - WINDOW)
        return sum(g.settled.get("tokens", 0) for g in self.grants[max(0, first - 200):first]
                   if g.settled is not None and g.settled["to"] >= int(start) - WINDOW)


def read(keys_path, log_paths):
    keys = {}
    pools = collections.defaultdict(set)
    with open(keys_path, encoding="ascii") as file:
        for version in json.load(file):
            keys.setdefault(version["key"], Key(version["key"])).versions.append(version)
            pools[version["pool"]].add(version["key"])
    grants, refusals = {}, []
    settled = []
    for path in log_paths:
        with open(path, encoding="ascii") as file:
            for text in file:
                if not text.endswith("\n"):
                    continue  # its writer was killed
                line = json.loads(text)
                if line["do"] != "select":
                    settled.append(line)
                elif line["status"] == "ok":
                    grants[line["grant"]] = Grant(line)
                    keys[line["key"]].grants.append(grants[line["grant"]])
                else:
                    refusals.append(line)
    for line in settled:
        grants[line["grant"]].settled = line
        if line["do"] == "limited":
            keys[line["key"]].cooldowns.append((line["from"], line["until"]))
    for key in keys.values():
        key.close()
    return keys, pools, grants, refusals


# Grants that surely lie within 60 seconds of each other, more than the limit of the last one allowed.
def windows_exceeded(key):
    breaches = []
    sent = [g for g in key.grants if not g.given_back()]
    ends = sorted(g.end for g in sent)
    for grant in sent:
        limit = max(v["max_rpm"] or float("inf") for v in key.may_be(grant.start, grant.end))
        within = bisect.bisect_right(ends, grant.end) - bisect.bisect_right(ends, grant.end - WINDOW)
        if within <= limit:
            continue
        surely = [g for g in sent if g.end <= grant.end and g.start > grant.end - WINDOW]
        if len(surely) > limit:
            breaches.append(f"{key.id}: {len(surely)} grants in the 60 s before {grant.end:.3f}")
    return breaches


# At every grant: the tokens that surely counted, with its own, against the limit.
def tokens_exceeded(key):
    breaches = []
    for grant in key.grants:
        limit = max(v["max_tpm"] or float("inf") for v in key.may_be(grant.start, grant.end))
        if limit == float("inf"):
            continue
        used = grant.tokens
        for other in key.grants:
            if other is grant or other.end >= grant.start or other.start <= grant.end - 2 * WINDOW:
                continue
            if other.settled is None or other.settled["from"] > grant.end:
                used += other.tokens if other.start > grant.end - WINDOW else 0
            elif other.settled["from"] > grant.end - WINDOW and other.settled["to"] < grant.start:
                used += other.settled.get("tokens", 0)
            elif other.settled["from"] > grant.end - WINDOW:
                used += min(other.settled.get("tokens", 0), other.tokens)  # being settled meanwhile
        if used > limit:
            breaches.append(f"{key.id}: {used} tokens at {grant.end:.3f}")
    return breaches


def refused_with_room(keys, pools, refusals):
    return [f"{line['pool']} refused at {line['from']:.6f} ({line['status']}) although {key} had room"
            for line in refusals for key in pools[line["pool"]]
            if keys[key].surely_has_room(line["from"], line["to"], line["tokens"])]


def better_one_passed_over(keys, pools, grants):
    breaches = []
    for grant in grants.values():
        best = min(v["priority"] for v in keys[grant.key].may_be(grant.start, grant.end))
        for key in pools[grant.pool]:
            surely_better = max(v["priority"] for v in keys[key].may_be(grant.start, grant.end)) < best
            if surely_better and keys[key].surely_has_room(grant.start, grant.end, grant.tokens):
                breaches.append(f"{grant.key} granted at {grant.start:.6f} although {key} had room")
    return breaches


def granted_though_gone(keys, grants):
    return [f"{grant.key} granted at {grant.start:.6f} though it was not usable" for grant in grants.values()
            if not any(v["usable"] for v in keys[grant.key].may_be(grant.start, grant.end))]


def report(number, name, breaches):
    print(f"{'not ok' if breaches else 'ok'} {number} - {name}")
    for breach in breaches[:10]:
        print(f"#   {breach}")
    return not breaches


# How much of what whole windows allow was granted, over keys whose limits never changed and that nothing else held back: at
# second s the window is the seconds s-60 to s, so a limit is there anew every 61 seconds. A window counts if it began so long
# before the clients ended that they could ask for all of it: refused clients wait, and call for other pools in between.
def granted_share(keys, pools, pool, last_call):
    begin = int(min(grant.start for key in pools[pool] for grant in keys[key].grants))
    windows = (int(last_call) - TIME_TO_ASK - begin) // (WINDOW + 1) + 1
    capacity = sum(keys[key].versions[-1]["max_rpm"] for key in pools[pool]) * windows
    end = begin + windows * (WINDOW + 1)
    return sum(grant.end < end for key in pools[pool] for grant in keys[key].grants), capacity


def main():
    keys, pools, grants, refusals = read(sys.argv[1], sys.argv[2:])
    print("1..6")
    whole = [
        report(1, "no 60 seconds of a key hold more grants than its limit",
               [b for key in keys.values() for b in windows_exceeded(key)]),
        report(2, "no 60 seconds of a key hold more tokens than its limit",
               [b for key in keys.values() for b in tokens_exceeded(key)]),
        report(3, "nobody is refused while a key had room", refused_with_room(keys, pools, refusals)),
        report(4, "no key is granted while a better one had room", better_one_passed_over(keys, pools, grants)),
        report(5, "no key is granted after it was deleted or switched off", granted_though_gone(keys, grants)),
    ]
    last_call = max([grant.end for grant in grants.values()] + [line["to"] for line in refusals])
    done, capacity = granted_share(keys, pools, "requests", last_call)
    whole.append(report(6, "at least 99.5 % of the capacity is granted",
                        [] if done >= 0.995 * capacity else [f"{done} of {capacity}"]))
    kinds = collections.Counter(grant.settled["do"] if grant.settled else "never settled" for grant in grants.values())
    print(f"# {len(grants)} grants ({', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))}), {len(refusals)} refusals; "
          f"{done} of {capacity} requests that whole windows allow")
    sys.exit(0 if all(whole) else 1)


if __name__ == "__main__":
    main()
