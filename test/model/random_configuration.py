# random_configuration.py - the steps of a random history that configure keys, quotas and providers.
import collections
import json

import psycopg2

from configuration_model import SETTINGS, configuration_of_key, configuration_of_quota, is_crowded, row_of_key, row_of_quota
from keypool_server import clock_text
from limited_model import Key, Quota
from slots_model import SECOND

DEFAULTS = {"strategy": "rotate", "default_tokens": 0, "rate_limit_scope": "key", "call_timeout": 1020}


class Difference(Exception):
    """What keypool did is not what the model does."""


class Configuring:
    """A part of History. Each step answers the pool that it was about."""

    # Runs what changes the configuration of a provider: then the session reads all anew.
    def configure(self, pool, what, expected, sql, *arguments):
        got = self.run(sql, *arguments)
        self.expect(what, expected, got.pgcode if isinstance(got, psycopg2.Error) else got)
        self.beliefs[pool.provider.name].forget()
        return pool

    def add_key(self, pool=None):
        pool = pool or self.some_pool()
        self.serial += 1
        key_id = self.deleted.pop() if self.deleted and self.random.random() < 0.5 else self.new_id()
        key = Key(key_id, pool.provider, secret=f"sk-{self.serial}", **configuration_of_key(self.random, self.clock))
        pool.keys[key_id] = key
        row = {"id": key.id, "provider_id": pool.provider.name, "key_value": key.secret, **self.row_of(key)}
        self.note("add")
        return self.configure(pool, "add", None, f"INSERT INTO keypool.provider_keys ({', '.join(row)})"
                              f" VALUES ({', '.join(['%s'] * len(row))})", *row.values())

    def new_id(self):
        return f"{self.random.getrandbits(32):08x}-0000-8000-8000-{self.serial:012x}"

    def row_of(self, key):
        return {**row_of_key(key), "expires_at": clock_text(key.expires_at) if key.expires_at else None}

    def delete(self):
        pool, key = self.some_key()
        if len(pool.keys) < 3:
            return self.add_key(pool)
        del pool.keys[key.id]
        self.configure(pool, "delete", ("",), "SELECT keypool_delete_key(%s)::text", key.id)
        self.leases = collections.deque((pair for pair in self.leases if pair[0].key_id != key.id), maxlen=200)
        self.deleted.append(key.id)
        self.note("delete")
        self.expect("record of a deleted key", "KP404", self.run("SELECT keypool_record(%s)", key.id).pgcode)
        return pool

    def change_key(self):
        pool, key = self.some_key()
        for name, value in configuration_of_key(self.random, self.clock).items():
            if self.random.random() < 0.5:
                setattr(key, name, value)
        row = self.row_of(key)
        self.note("limits")
        if self.random.random() < 0.3:
            return self.configure(pool, "update", ("",), "SELECT keypool_update_key(%s, %s)::text", key.id, json.dumps(row))
        return self.configure(pool, "update", None, "UPDATE keypool.provider_keys SET"
                              f" {', '.join(f'{name} = %s' for name in row)} WHERE id = %s", *row.values(), key.id)

    def toggle_key(self, pool, key, active, seconds):
        key.active, key.inactive_until = active, seconds and self.clock + seconds * SECOND
        self.note("toggle on" if active else "toggle for a time" if seconds else "toggle off")
        return self.configure(pool, "toggle", ("",), "SELECT keypool_toggle_key(%s, %s, %s)::text", key.id, active, seconds)

    def toggle(self):
        active = self.random.random() < 0.5
        return self.toggle_key(*self.some_key(), active, None if active else self.random.choice((None, 1, 30, 90)))

    # Another secret, of which nothing bad is known yet.
    def set_secret(self):
        pool, key = self.some_key()
        self.serial += 1
        key.secret = f"sk-{self.serial}-changed"
        key.keep_up(self.clock)
        key.meter.breaker = key.meter.breaker.closed(key.meter.now(self.clock))
        self.note("secret")
        return self.configure(pool, "set_secret", ("",), "SELECT keypool_set_secret(%s, %s)::text", key.id, key.secret)

    # A whole provider is switched off, so that it has no active key left; or on.
    def switch_off(self):
        pool = self.some_pool()
        for key in pool.keys.values():
            self.toggle_key(pool, key, False, self.random.choice((None, 20, 60)))
        return pool

    def switch_on(self):
        pool = self.some_pool()
        for key in pool.keys.values():
            self.toggle_key(pool, key, True, None)
        return pool

    def add_quota(self, pool=None):
        pool = pool or self.some_pool()
        self.serial += 1
        name = f"quota {self.serial}"
        quota = Quota("", pool.provider, name=name, **configuration_of_quota(self.random))
        sql = "SELECT keypool_set_quota(%s, %s, %s)::text"
        settings = json.dumps(row_of_quota(quota))
        if is_crowded(quota, pool.quotas.values()):
            return self.refuse_quota(pool, sql, pool.provider.name, name, settings)
        got = self.run(sql, pool.provider.name, name, settings)
        if isinstance(got, psycopg2.Error):
            raise Difference(f"set_quota: {got.pgcode} {got}")
        quota.id = got[0]
        pool.quotas[quota.id] = quota
        self.beliefs[pool.provider.name].forget()
        self.note("quota made")
        return pool

    def refuse_quota(self, pool, sql, *arguments):
        got = self.run(sql, *arguments)
        self.expect("quotas that are too many", "22023", getattr(got, "pgcode", got))
        self.beliefs[pool.provider.name].doubt()
        self.note("quota refused")
        return pool

    def change_quota(self):
        pool = self.some_pool()
        if not pool.quotas:
            return self.add_quota(pool)
        quota = self.random.choice(list(pool.quotas.values()))
        changed = Quota(quota.id, pool.provider, name=quota.name, meter=quota.meter, **configuration_of_quota(self.random))
        row = row_of_quota(changed)
        sql = (f"UPDATE keypool.quotas SET {', '.join(f'{name} = %s' for name in row)} WHERE id = %s")
        others = [other for other in pool.quotas.values() if other is not quota]
        moves = [(one.account, one.models, one.except_models) for one in (quota, changed)]
        if moves[0] != moves[1] and is_crowded(changed, others):
            return self.refuse_quota(pool, sql, *row.values(), quota.id)
        pool.quotas[quota.id] = changed
        self.note("quota changed")
        if self.random.random() < 0.3:
            return self.configure(pool, "set_quota", (quota.id,), "SELECT keypool_set_quota(%s, %s, %s)::text",
                                  pool.provider.name, quota.name, json.dumps(row))
        return self.configure(pool, "update quota", None, sql, *row.values(), quota.id)

    def delete_quota(self):
        pool = self.some_pool()
        if not pool.quotas:
            return self.add_quota(pool)
        quota = pool.quotas.pop(self.random.choice(list(pool.quotas)))
        self.note("quota deleted")
        return self.configure(pool, "delete_quota", ("",), "SELECT keypool_delete_quota(%s, %s)::text", pool.provider.name,
                              quota.name)

    def change_provider(self):
        pool = self.some_pool()
        settings = {name: self.random.choice(SETTINGS[name]) for name in self.random.sample(list(SETTINGS), 2)}
        for name, value in settings.items():
            setattr(pool.provider, name, DEFAULTS.get(name) if value is None else value)
        self.note("provider")
        return self.configure(pool, "set_provider", ("",), "SELECT keypool_set_provider(%s, %s)::text", pool.provider.name,
                              json.dumps(settings))

    STEPS = {toggle: 2, set_secret: 0.2, switch_off: 0.2, switch_on: 0.3, delete: 0.3, add_key: 0.3, change_key: 1, add_quota: 0.3,
             change_quota: 0.7, delete_quota: 0.3, change_provider: 0.4}
