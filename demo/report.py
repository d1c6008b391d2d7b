"""report.py - what the demo prints: progress, two tables, and the claims."""

import itertools

from provider_simulator import LIMITS, Limit

WHOLE_SECONDS = "mistral"   # keypool gives out less than its limit of a second, so that nobody waits is not claimed
SHOWN_PROBLEMS = 5


def print_progress(second, seconds, counts):
    parts = "  ".join(f"{provider} {count.get('served', 0)}" for provider, count in counts.items())
    print(f"  {second:3}/{seconds} s  429s {seen(counts, 'too_many')}  served {seen(counts, 'served')}: {parts}")


def seen(counts, name):
    """By all providers."""
    return sum(count.get(name, 0) for count in counts.values())


def total(logs, name):
    return sum(getattr(log, name) for log in logs)


def refusals(logs):
    return [call for log in logs for call in log.selections if call.status != "ok"]


def print_providers(logs, logs_without):
    print("\n  provider   clients  asked  served  told to wait  429s   429s without keypool")
    for provider, group in itertools.groupby(logs, lambda log: log.provider):
        group = list(group)
        without = [log for log in logs_without if log.provider == provider]
        print(f"  {provider:<10}{len(group):>8}{total(group, 'asked'):>7}{total(group, 'served'):>8}"
              f"{len(refusals(group)):>14}{total(group, 'too_many'):>6}{total(without, 'too_many'):>12,}")


def buckets_of(books, limit):
    return [bucket for bucket in books["buckets"] if Limit(*bucket["limit"]) == limit]


def print_limits(books, books_without):
    print("\n  what the providers count, in their books                limit  fullest  through keys"
          "  429s without keypool")
    for limit in LIMITS:
        per = {None: "", "day": " a day", 60: " a minute"}.get(limit.per, " a second")
        fullest = max(buckets_of(books, limit), key=lambda bucket: bucket["peak"])
        refused = sum(bucket["refused"] for bucket in buckets_of(books_without, limit))
        print(f"  {limit.family:<17} {limit.unit + per:<20} by {limit.whose:<12} {limit.most:>9,}"
              f"{fullest['peak']:>9,}{fullest['keys']:>14}{refused:>14,}")


def claims(logs, logs_without, books, before, after, resting, ledger):
    """Pairs: does it hold, and what."""
    counts, buckets = books["counts"], [(Limit(*bucket["limit"]), bucket) for bucket in books["buckets"]]

    met, met_without = total(logs, "too_many"), total(logs_without, "too_many")
    yield met == seen(counts, "too_many") == 0 < met_without, \
        f"429s met: {met}; without keypool, in a shorter time: {met_without:,}"

    shared = [bucket["peak"] > limit.most for limit, bucket in buckets if bucket["keys"] > 1]
    yield shared and not any(shared), f"limits shared by two keys or more: {len(shared)}; ever exceeded: {sum(shared)}"

    waits = [call for call in refusals(logs) if call.provider != WHOLE_SECONDS]
    wrong = [call for call in waits if ledger.is_wrong(call)]
    yield waits and not wrong, (f"told to wait: {len(waits)} times, {len(wrong)} of them while there was room, or for "
                                f"longer than needed ({WHOLE_SECONDS} not judged)")
    for call in wrong[:SHOWN_PROBLEMS]:
        print(f"  {call.provider} {call.model}: {call.status}, retry after {call.retry_after_ms} ms")

    wrong_key = total(logs, "wrong_key")
    yield wrong_key == 0, f"calls with a wrong secret or a key that is off: {wrong_key}"

    bad, bad_without = total(logs, "bad"), total(logs_without, "bad")
    yield 0 < bad < bad_without, (f"calls with bad keys (one is revoked, three are of an account without credit): {bad}; "
                                  f"without keypool: {bad_without:,}")
    selections = [call for log in logs for call in log.selections]
    too_soon = ledger.asked_too_soon(selections)
    yield not too_soon, f"calls with a key that was to rest, as a report had been told before: {len(too_soon)}"
    failed = total(logs, "failed") - bad
    yield failed and resting == ["revoked"], (
        f"calls in bursts of 500, 503 and 529: {failed}; keys that rest because of them: {len(resting) - 1}")

    by_clients = total(logs, "served") + total(logs, "failed"), total(logs, "tokens")
    by_providers = seen(counts, "served") + seen(counts, "failed"), seen(counts, "tokens")
    by_keypool = tuple(now - then for now, then in zip(after[0], before[0]))
    yield by_clients == by_providers == by_keypool, (
        "requests and tokens as counted by clients, providers, keypool: "
        + ", ".join(f"{requests:,} and {tokens:,}" for requests, tokens in dict.fromkeys(
            (by_clients, by_providers, by_keypool))))

    served = {f"{bucket['holder']} {limit.family}": bucket["served"] for limit, bucket in buckets}
    differ = [name for name, count in after[1].items()
              if name != "lapsed" and count - before[1][name] != served.get(name, 0)]
    yield not differ, f"quotas: {len(after[1])}; whose requests the provider counts differently: {len(differ)}"


def print_claims(pairs):
    pairs = list(pairs)
    print()
    for holds, text in pairs:
        print(f"  {'ok    ' if holds else 'FAILED'}  {text}")
    return all(holds for holds, _ in pairs)
