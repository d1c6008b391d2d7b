# test_model.py - a long random history, compared step by step with the reference model.
#
# Makes a database of its own. Prints TAP. The steps are done in chunks, each on a new database and with a seed of its own,
# which is printed; `--seed N --steps 100000` repeats the chunk with that seed.
import collections
import sys

from keypool_server import START, Tap, connect_to_new, note_experiment, read_options, rounds
from random_configuration import Difference
from random_history import History

CHUNK = 100_000  # steps
MUST_HAPPEN = (
    "preferred", "select ok", "select KP429", "select KP404", "select KP413", "try_select ok", "try_select limited",
    "try_select cooling", "try_select busy", "try_select no_key", "try_select too_large", "peek ok", "peek limited",
    "refused by a key", "refused by a quota", "back by itself", "behind", "weighted", "fill_first", "of a model",
    "under a quota", "record lease", "record settled lease", "record late lease", "record old lease", "record none",
    "release open", "release closed", "mark_429 lease", "mark_429 none", "mark_429 bad lease", "blocked a key",
    "blocked a model", "blocked a quota", "clear_cooldown", "clear_cooldown of quotas", "toggle on", "toggle off",
    "toggle for a time", "delete", "add", "limits", "quota made", "quota changed", "quota deleted", "quota refused",
    "report ok", "report rate", "report exhausted", "report auth", "report billing", "report forbidden",
    "report server", "report overloaded", "report client", "report unsent", "breaker opened", "breaker opened again",
    "breaker closed", "probe", "suspect", "secret", "provider", "clock forward", "clock back", "clock far back", "day or month ended", "usage")


# Walks so many steps on a new database. Answers how many were done, and whether all of them agreed with the model.
def walk(seed, steps, seen):
    print(f"# {steps} steps with seed {seed}", flush=True)
    connection = connect_to_new("keypool_model")
    history = History(connection, seed, seen)
    number = 0
    try:
        history.begin()
        for number in range(steps):
            history.step()
        return steps, True
    except Difference as difference:
        print(f"# seed {seed}, step {number}: {difference}\n# the last statements:")
        for clock, sql, arguments in history.steps:
            print(f"#   at {clock - START}: {sql} {arguments}")
        return number + 1, False
    finally:
        connection.close()


def main():
    options = read_options(steps=rounds(40_000, 10 * CHUNK))
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
