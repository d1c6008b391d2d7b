# speed.py - the cases that compare throughputs of short runs.
import statistics

from postgres import Failed, make_database, mean_latencies, on_one_processor, sql, throughput
from redis import Redis
from results import SECONDS, clients_text, compared, in_turns, result


def select(provider, clients=8, script="select"):
    return lambda: throughput(script, clients, SECONDS, provider=provider)


def make_pool(provider, keys, priorities=1, rpm=1000000000):
    if sql(f"SELECT NOT EXISTS (SELECT FROM keypool.provider_keys WHERE provider_id = '{provider}')") == ["t"]:
        sql(f"CALL make_pool('{provider}', {keys}, {priorities}, {rpm})")
        sql("VACUUM ANALYZE keypool.provider_keys, keypool.key_meters")


# A selection beside a function that returns the same row and does nothing, in two ways. With both in one run, nothing that drifts over time
# makes a difference; but with more clients than processors, each call waits for others of both kinds, which draws the ratio
# to 1. Runs in turns do not have that fault.
def select_floor(case):
    make_pool("pool10", 10)

    def mixed(clients):
        found = in_turns({"both": lambda: mean_latencies(["floor-select", "select"], clients, SECONDS, provider="pool10")})["both"]
        return [floor / ours for floor, ours in found], "{:.1f} and {:.1f} us".format(*(statistics.median(column) for column in zip(*found)))

    for clients, target in ((1, 0.95), (8, 0.90), (32, 0.90), (64, None)):
        goal = target and ("at least", target)
        ratios, note = mixed(clients)
        where = "1 client" if clients == 1 else clients_text(clients)
        result(case, f"{where}, mixed in one run", ratios, target=goal, note=f"latencies {note}")
        if clients == 1:
            with on_one_processor():
                ratios, note = mixed(clients)
            result(case, f"{clients_text(clients)}, mixed in one run", ratios, target=goal, note=f"latencies {note}")
        values = in_turns({"floor": select("pool10", clients, "floor-select"), "keypool": select("pool10", clients)})
        compared(case, f"{clients_text(clients)}, runs in turns", values, "keypool", "floor", goal)


# The size of the pool must not matter.
def select_pool_size(case):
    sizes = (1, 10, 100, 1000, 10000)
    for size in sizes:
        make_pool(f"pool{size}", size)
    values = in_turns({size: select(f"pool{size}") for size in sizes})
    for size in sizes:
        if size != 10:
            compared(case, f"{size:,} free, against 10 keys", values, size, 10, ("at least", 0.90) if size == 10000 else None)


# Fills or cools the keys of a provider whose label's number is above `free`: every other one has used its one request of the window, the rest
# cools for a day. What is full stays so for 60 seconds, so this comes before each run.
def block(provider, free):
    if SECONDS > 45:
        raise Failed("SECONDS_PER_RUN must be less than 45: full keys would come back")
    sql(f"""
        SET synchronous_commit = off;
        WITH k AS (SELECT id, split_part(key_label, ' ', 2)::int AS number, max_rpm FROM keypool.provider_keys
                   WHERE provider_id = '{provider}')
        SELECT count(CASE WHEN number % 2 = 1 AND max_rpm = 1 THEN keypool_record(id, 1)::text
                          ELSE keypool_mark_429(id, 86400)::text END)
        FROM k WHERE number > {free}""")
    left = sql(f"""
        SELECT count(*) FROM keypool_list_keys('{provider}')
        WHERE NOT coalesce(cooldown_until > now(), false) AND window_requests < max_rpm""")
    if left != [str(free)]:
        raise Failed(f"{left[0]} keys of {provider} are free, not {free}")


def blocked(provider, free, script="select"):
    def measure():
        block(provider, free)
        return throughput(script, 8, SECONDS, provider=provider)
    return measure


# Keys that cannot serve must not cost the calls that find one that can, nor those that find none.
def select_blocked(case):
    make_pool("pool10", 10)
    for provider, free in (("mostly", 100), ("all", 0)):
        make_pool(provider, 10000)
        sql(f"""UPDATE keypool.provider_keys SET max_rpm = 1 WHERE provider_id = '{provider}'
                AND split_part(key_label, ' ', 2)::int > {free} AND split_part(key_label, ' ', 2)::int % 2 = 1""")
    make_pool("levels", 1000, priorities=10)
    sql("UPDATE keypool.provider_keys SET priority = 9 - priority WHERE provider_id = 'levels'")  # the last served are the lowest numbers
    values = in_turns({
        "10 keys": select("pool10"),
        "10 keys, try": select("pool10", script="try-select"),
        "mostly": blocked("mostly", 100),
        "levels": blocked("levels", 100),
        "all": blocked("all", 0, "try-select"),
    })
    compared(case, "9,900 of 10,000 keys full or cooling, against 10 free", values, "mostly", "10 keys", ("at least", 0.80))
    compared(case, "10 priorities of 100 keys, 9 cooling, against 10 free", values, "levels", "10 keys")
    compared(case, "refusals, 10,000 keys full or cooling, against 10 free", values, "all", "10 keys, try")


# Keys that quotas keep out must not cost more than keys that are full themselves: a quota is one step for all its keys.
def select_quotas(case):
    make_pool("pool10", 10)
    sql("""CALL make_account_pool('accounts', 10000, 100, 1);
           INSERT INTO keypool.provider_keys (provider_id, key_label, key_value, priority)
           SELECT 'accounts', 'free ' || i, 'sk-bench-free-' || i, 1 FROM generate_series(1, 10) i""")

    def accounts_full():
        sql("SELECT count(keypool_select('accounts')) FROM generate_series(1, 110)")
        return throughput("select", 8, SECONDS, provider="accounts")
    values = in_turns({"10 keys": select("pool10"), "accounts": accounts_full})
    compared(case, "10,000 keys under 100 quotas that are full, and 10 free keys, against 10 free", values, "accounts", "10 keys", ("at least", 0.80))


# Many providers in use at once.
def select_providers(case):
    sql("CALL make_providers(100, 10)")

    def any_of(providers):
        return lambda: throughput("select-any", 8, SECONDS, providers=providers)
    compared(case, "100 providers of 10 keys, against 1", in_turns({100: any_of(100), 1: any_of(1)}), 100, 1)


def any_id(provider):
    return sql(f"SELECT id FROM keypool.provider_keys WHERE provider_id = '{provider}' LIMIT 1")[0]


# Ten keys to record for, drawn at random: script and its variable.
def any_key(script):
    keys = sql("SELECT id FROM keypool.provider_keys WHERE provider_id = 'pool10' ORDER BY id")
    return [(script, {"key": key}) for key in keys]


# A record beside a function that writes a WAL record of the same length and does nothing else.
def record_floor(case):
    make_pool("pool10", 10)
    ours, floor = any_key("record"), any_key("floor-record")
    for mode, setting, target in (("not waiting", "off", 0.90), ("waiting", "on", 0.95)):
        for clients in (1, 8):
            def calls(scripts):
                return lambda: throughput(scripts, clients, SECONDS, synchronous_commit=setting)
            values = in_turns({"keypool": calls(ours), "floor": calls(floor)})
            compared(case, f"{mode} for the disk, {clients_text(clients)}", values, "keypool", "floor", ("at least", target))


def make_peers(keys):
    make_pool(f"pool{keys}", keys)
    if sql(f"SELECT count(*) FROM pg_database WHERE datname = 'original_{keys}'", "postgres") == ["0"]:
        make_database(f"original_{keys}", "original", keys=keys)
        make_database(f"careful_{keys}", "careful", keys=keys)


# A selection and its record, beside the original, careful SQL, and Redis. Redis goes to the disk every second, however keypool does. Also
# with the record of one request in the statement that selects for the next, as a gateway may have it.
def cycle(case):
    with Redis() as redis:
        for keys, target in ((10, 5), (10000, 500)):
            make_peers(keys)
            redis.make_pool(f"pool{keys}", keys)
            turns = {"redis": lambda: redis.cycle(f"pool{keys}", 8, SECONDS)}
            for commit in ("on", "off"):
                def run(script, database="bench", commit=commit, **variables):
                    return lambda: throughput(script, 8, SECONDS, database=database, synchronous_commit=commit, **variables)
                turns[f"keypool {commit}"] = run("cycle", provider=f"pool{keys}")
                turns[f"one {commit}"] = run("record-and-select", provider=f"pool{keys}", key_id=any_id(f"pool{keys}"), lease=0)
                turns[f"original {commit}"] = run("original-cycle", f"original_{keys}", keys=keys)
                turns[f"careful {commit}"] = run("careful-cycle", f"careful_{keys}")
            values = in_turns(turns)
            for commit, waiting in (("on", "waiting"), ("off", "not waiting")):
                where = f"{keys:,} keys, 8 clients, {waiting}"
                compared(case, f"{where}, against the original", values, f"keypool {commit}", f"original {commit}", ("at least", target))
                compared(case, f"{where}, one statement, against the original", values, f"one {commit}", f"original {commit}")
                compared(case, f"{where}, against careful SQL", values, f"keypool {commit}", f"careful {commit}")
                compared(case, f"{where}, against Redis", values, f"keypool {commit}", "redis")


def select_redis(case):
    make_pool("pool10", 10)
    with Redis() as redis:
        redis.make_pool("pool10", 10)
        for clients in (8, 32, 64):
            values = in_turns({"keypool": select("pool10", clients), "redis": lambda: redis.select("pool10", clients, SECONDS)})
            compared(case, f"10 keys, {clients} clients", values, "keypool", "redis", ("at least", 1.0))


# Many sessions that all want one key.
def contention(case):
    make_pool("pool1", 1)
    values = in_turns({clients: select("pool1", clients) for clients in (1, 8, 32)})
    compared(case, "32 clients on one key, against 8", values, 32, 8, ("at least", 1.0))
    compared(case, f"32 clients on one key, against {clients_text(1)}", values, 32, 1)
