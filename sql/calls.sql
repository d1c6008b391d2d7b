-- One request over a key and its quotas: what is asked, who may serve it, what is reserved, and what a settlement leaves.
SET keypool.test_now = '2026-01-01 12:00:00+00';
SET timezone = 'UTC';
INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value, account, attributes) VALUES
  ('00000000-0000-8000-8000-000000000001', 'calls', 'a', 'sk-a', 'org/a', '{"region": "eu"}'),
  ('00000000-0000-8000-8000-000000000002', 'calls', 'b', 'sk-b', 'org/b', NULL),
  ('00000000-0000-8000-8000-000000000003', 'calls', 'c', 'sk-c', 'other', NULL);
UPDATE keypool.provider_keys SET priority = 1, except_models = '{small*}' WHERE key_label = 'c';
\set a '00000000-0000-8000-8000-000000000001'
\set b '00000000-0000-8000-8000-000000000002'
\set c '00000000-0000-8000-8000-000000000003'
SELECT count(keypool_set_quota('calls', name, settings)) AS made FROM (VALUES
  ('org', '{"account": "org", "max_rpm": 5}'::jsonb),
  ('large', '{"account": "org", "models": ["large*"], "max_tpm": 1000, "counts": "prompt"}'),
  ('output', '{"models": ["large*"], "max_output_tpm": 500, "max_cost_per_day": 1000}')) q(name, settings);
CREATE VIEW quotas_now AS
  SELECT name, window_requests AS requests, window_tokens AS tokens, in_flight, total_requests, total_tokens, retry_after_ms
  FROM keypool_list_quotas('calls') ORDER BY name;
CREATE VIEW keys_now AS
  SELECT key_label, window_requests AS requests, window_tokens AS tokens, in_flight, total_requests, total_tokens
  FROM keypool_list_keys('calls') ORDER BY key_label;

-- A row has what the request needs; a peek has neither secret nor lease. Arguments go by name.
SELECT key_label, key_value, length(lease), priority, max_rpm, status, retry_after_ms, provider_id, attributes, blocked_by, blocked_limit
FROM keypool_select(provider => 'calls', tokens => 100, model => 'small', output_tokens => 40, cost => 7,
  except_keys => ARRAY[:'b']::uuid[], cached_tokens => 10);
SELECT * FROM keypool_peek('calls', except_keys => ARRAY[:'b', :'c']::uuid[]);
-- A model that no quota is for draws on the key and the quotas for all models; one that some are for, on those, too.
TABLE quotas_now;
SELECT key_label, lease AS large FROM keypool_select('calls', 700, 'large-1', 200, 30, cached_tokens => 100, except_keys => ARRAY[:'b']::uuid[]) \gset
TABLE quotas_now;
TABLE keys_now;

-- Whose limit is in the way is told: tokens - output of 500 and 600 do not fit into 1,000; c is of another account.
SELECT key_label FROM keypool_select('calls', 600, 'large-1');
SELECT status, retry_after_ms, blocked_by, blocked_limit FROM keypool_try_select('calls', 600, 'large-1', except_keys => ARRAY[:'c']::uuid[]);
SELECT * FROM keypool_select('calls', 600, 'large-1', except_keys => ARRAY[:'c']::uuid[]);
\echo :SQLSTATE
-- Output and cost are limits of their own.
SELECT status, blocked_by, blocked_limit FROM keypool_try_select('calls', 400, 'large-1', 301);
SELECT status, blocked_by, blocked_limit, retry_after_ms FROM keypool_try_select('calls', 1, 'large-1', 0, 971);
-- What is larger than the limit itself is too large for these keys, not for others.
SELECT status, retry_after_ms, blocked_by FROM keypool_try_select('calls', 501, 'large-1', 501);
SELECT status, key_label FROM keypool_try_select('calls', 1001, 'large-1');
SELECT status FROM keypool_try_select('calls', 1001, 'large-1', except_keys => ARRAY[:'c']::uuid[]);
SELECT status FROM keypool_try_select('calls', 501, 'small', 501);

-- Who serves which model, and who is excluded.
SELECT status, key_label FROM keypool_peek('calls', model => 'small', except_keys => ARRAY[:'a', :'b']::uuid[]);
SELECT status, key_label FROM keypool_peek('calls', except_keys => ARRAY[:'a', :'b']::uuid[]);
UPDATE keypool.provider_keys SET models = '{tiny}' WHERE key_label IN ('a', 'b');
-- No model named: keys that name models do not serve it.
SELECT status, key_label FROM keypool_peek('calls');
SELECT status, key_label FROM keypool_peek('calls', model => 'tiny', except_keys => ARRAY[:'a']::uuid[]);
SELECT * FROM keypool_select('calls', model => 'small');
SELECT * FROM keypool_select('calls', except_keys => ARRAY[:'a', :'b', :'c', :'c']::uuid[]);
\echo :SQLSTATE
SELECT status FROM keypool_try_select('calls', except_keys => ARRAY[:'a', :'b', :'c']::uuid[]);
SELECT key_label FROM keypool_peek('calls', except_keys => '{}'::uuid[]);
UPDATE keypool.provider_keys SET models = NULL WHERE provider_id = 'calls';

-- What each key says. Nobody is asked before their turn; nothing changes.
SELECT * FROM keypool_explain_select('calls', 600, 'large-1', except_keys => ARRAY[:'c']::uuid[]);
SELECT keypool_toggle_key(:'a', false, 60);
UPDATE keypool.provider_keys SET expires_at = '2026-01-01 12:00:00+00' WHERE key_label = 'b';
SELECT key_label, status, retry_after_ms, blocked_by, blocked_limit FROM keypool_explain_select('calls', 2000, 'small');
UPDATE keypool.provider_keys SET expires_at = NULL WHERE key_label = 'b';
SELECT keypool_toggle_key(:'a', true);
SELECT key_label, status, retry_after_ms, blocked_by, blocked_limit FROM keypool_explain_select('calls', 2000, 'large-1');
SELECT count(*) FROM keypool_explain_select('nobody');
TABLE keys_now;

-- Settled by its lease, a call counts once, in the key and in all quotas that it drew on: each counts what it counts.
SET keypool.test_now = '2026-01-01 12:00:10+00';
SELECT keypool_record(:'a', 650, :'large', output_tokens => 150, cached_tokens => 0, cost => 25);
SELECT keypool_record(:'a', 650, :'large', output_tokens => 150, cached_tokens => 0, cost => 25);
SELECT keypool_release(:'a', :'large');
TABLE quotas_now;
TABLE keys_now;
-- A lease knows its quotas; without one, those for all models count, or those for the model that is named.
SELECT keypool_record(:'b', 10);
SELECT keypool_record(:'b', 20, model => 'large-2');
TABLE quotas_now;
-- What is not said is as estimated, by a lease; else nothing. Of parts that are not said no more than there is room for.
SET keypool.test_now = '2026-01-01 13:00:00+00';
SELECT lease FROM keypool_select('calls', 300, 'large-1', 100, except_keys => ARRAY[:'b']::uuid[]) \gset
SELECT keypool_record(:'a', NULL, :'lease');
SELECT lease FROM keypool_select('calls', 300, 'large-1', 100, except_keys => ARRAY[:'b']::uuid[]) \gset
SELECT keypool_record(:'a', 60, :'lease');
SELECT name, window_tokens FROM keypool_list_quotas('calls') WHERE name IN ('large', 'org') ORDER BY name;

-- Amounts: parts that exceed the whole are the whole, with a NOTICE; where the whole was not said, without.
SET keypool.test_now = '2026-01-01 14:00:00+00';
SELECT lease FROM keypool_select('calls', 100, 'large-1', 80, cached_tokens => 30, except_keys => ARRAY[:'b']::uuid[]) \gset
SELECT tokens FROM keys_now WHERE key_label = 'a';
SELECT status FROM keypool_try_select('calls', NULL, 'large-1', 80, cached_tokens => 30, except_keys => ARRAY[:'b']::uuid[]);
SELECT tokens FROM keys_now WHERE key_label = 'a';
SELECT keypool_record(:'a', 10, :'lease', 50, 20);
SELECT keypool_record(:'a', -10, NULL, -50, 2000000000, -1);
SELECT tokens, requests FROM keys_now WHERE key_label = 'a';
-- A provider's default_tokens stand for tokens that are not said, and for no others.
SELECT keypool_set_provider('calls', '{"default_tokens": 250}');
SET keypool.test_now = '2026-01-01 15:00:00+00';
SELECT key_label, lease FROM keypool_select('calls', model => 'small', except_keys => ARRAY[:'b']::uuid[]) \gset
SELECT tokens FROM keys_now WHERE key_label = 'a';
SELECT keypool_record(:'a', NULL, :'lease');
SELECT tokens FROM keys_now WHERE key_label = 'a';
SELECT status FROM keypool_try_select('calls', 0, 'small', except_keys => ARRAY[:'b']::uuid[]);
SELECT status FROM keypool_try_select('calls', model => 'small', output_tokens => 300, except_keys => ARRAY[:'b']::uuid[]);
SELECT tokens FROM keys_now WHERE key_label = 'a';
SELECT keypool_set_provider('calls', '{"default_tokens": null}');

-- Calls in flight are places: full is busy, and who settles or gives back makes room.
SELECT keypool_set_quota('calls', 'org', '{"max_rpm": null, "max_in_flight": 3}') IS NOT NULL AS changed;
SET keypool.test_now = '2026-01-01 16:00:00+00';
SELECT count(*) AS taken FROM generate_series(1, 3) i, keypool_try_select('calls', i * 0, except_keys => ARRAY[:'c']::uuid[]) WHERE status = 'ok';
SELECT status, blocked_by, blocked_limit, retry_after_ms BETWEEN 1 AND 1000 AS soon
FROM keypool_try_select('calls', except_keys => ARRAY[:'c']::uuid[]);
SELECT keypool_record(:'b');
SELECT lease FROM keypool_select('calls', model => 'small', except_keys => ARRAY[:'a', :'c']::uuid[]) \gset
SELECT status FROM keypool_peek('calls', except_keys => ARRAY[:'c']::uuid[]);
SELECT keypool_release(:'b', :'lease');
SELECT status FROM keypool_peek('calls', except_keys => ARRAY[:'c']::uuid[]);
-- Places that nobody settles are back after call_timeout, 17 minutes, and the rest of their slot.
SELECT lease FROM keypool_select('calls', model => 'small', except_keys => ARRAY[:'a', :'c']::uuid[]) \gset
SET keypool.test_now = '2026-01-01 16:16:59+00';
SELECT status FROM keypool_peek('calls', except_keys => ARRAY[:'c']::uuid[]);
SET keypool.test_now = '2026-01-01 16:19:00+00';
SELECT status FROM keypool_peek('calls', except_keys => ARRAY[:'c']::uuid[]);
SELECT in_flight FROM quotas_now WHERE name = 'org';
SELECT keypool_set_quota('calls', 'org', '{"max_rpm": 5, "max_in_flight": null}') IS NOT NULL AS changed;

-- Many at once: the rows that were served, and one that says why there are no more.
SET keypool.test_now = '2026-01-01 17:00:00+00';
SELECT row_number() OVER () AS row, key_label IN ('a', 'b') AS of_org, key_value IS NOT NULL AS secret, lease IS NOT NULL AS lease, status,
  retry_after_ms, blocked_by, blocked_limit
FROM keypool_select_many('calls', 7, 10, 'small', except_keys => ARRAY[:'c']::uuid[]);
SELECT name, requests, tokens, in_flight FROM quotas_now WHERE name = 'org';
SELECT status FROM keypool_select_many('calls', 2, 10, 'small', except_keys => ARRAY[:'a', :'b', :'c']::uuid[]);
SELECT count(*), count(DISTINCT lease) FROM keypool_select_many('calls', 1000, except_keys => ARRAY[:'a', :'b']::uuid[]) WHERE status = 'ok';

-- Many settlements at once: what fails is skipped with a warning, what was settled before counts nothing.
SET keypool.test_now = '2026-01-01 18:00:00+00';
SELECT array_agg(lease ORDER BY n) AS leases, array_agg(key_id ORDER BY n) AS keys
FROM (SELECT key_id, lease, row_number() OVER () AS n FROM keypool_select_many('calls', 3, 100, except_keys => ARRAY[:'b', :'c']::uuid[])) served \gset
SELECT keypool_record_many(:'keys', ARRAY[1, 2, 4], :'leases');
SELECT keypool_record_many(:'keys', ARRAY[1, 2, 4], :'leases');
SELECT keypool_record_many(ARRAY[:'a', :'a', '00000000-0000-8000-8000-00000000000f', :'c', :'b']::uuid[], ARRAY[8, 16, 32, 64, -1],
  ARRAY[NULL, 'no lease', NULL, (:'leases'::text[])[1], NULL], cost => ARRAY[NULL, NULL, NULL, NULL, 5]);
SELECT keypool_record_many('{}');
TABLE keys_now;

-- Through JSON and back: nothing is rounded.
SET keypool.test_now = '2026-01-01 19:00:00+00';
SELECT row_to_json(row)::text AS json FROM keypool_select('calls', 100, 'small', except_keys => ARRAY[:'b', :'c']::uuid[]) row \gset
SELECT j - 'lease' AS row, jsonb_typeof(j -> 'lease') AS lease FROM CAST(:'json' AS jsonb) j;
SELECT keypool_record((j ->> 'key_id')::uuid, 5, j ->> 'lease') FROM CAST(:'json' AS jsonb) j;
SELECT keypool_record((j ->> 'key_id')::uuid, 5, j ->> 'lease') FROM CAST(:'json' AS jsonb) j;

-- Whom a 429 blocks. By itself, the narrowest of the quotas that the lease drew on.
SET keypool.test_now = '2026-01-01 20:00:00+00';
CREATE VIEW blocked AS
  SELECT name, blocked_until FROM keypool_list_quotas('calls') WHERE blocked_until > current_setting('keypool.test_now')::timestamptz
  UNION ALL
  SELECT key_label, cooldown_until FROM keypool_list_keys('calls') WHERE cooldown_until > current_setting('keypool.test_now')::timestamptz
  ORDER BY 1;
SELECT lease AS large FROM keypool_select('calls', 50, 'large-1', except_keys => ARRAY[:'b', :'c']::uuid[]) \gset
SELECT keypool_mark_429(:'a', 30, :'large');
TABLE blocked;
SELECT status, retry_after_ms, blocked_by, blocked_limit FROM keypool_peek('calls', 1, 'large-2', except_keys => ARRAY[:'c']::uuid[]);
SELECT status, key_label FROM keypool_peek('calls', 1, 'large-2');
SELECT status FROM keypool_peek('calls', 1, 'small', except_keys => ARRAY[:'a', :'c']::uuid[]);
SELECT name, requests, tokens, in_flight FROM quotas_now;
-- Again: it blocks until later, and counts nothing. An earlier deadline changes nothing.
SELECT keypool_mark_429(:'a', 40, :'large');
SELECT keypool_mark_429(:'a', 10, :'large', 'quota');
SELECT name, requests, tokens, in_flight FROM quotas_now;
-- Without a lease: the key's oldest open call is this one, if there is one; quotas for all models.
SELECT lease FROM keypool_select('calls', 50, 'large-1', except_keys => ARRAY[:'a', :'b']::uuid[]) \gset
SELECT in_flight, requests FROM keys_now WHERE key_label = 'c';
SELECT keypool_mark_429(:'c', 20);
SELECT keypool_mark_429(:'c', 25);
SELECT in_flight, requests FROM keys_now WHERE key_label = 'c';
SELECT keypool_mark_429(:'b', 50);
TABLE blocked;
SELECT keypool_clear_cooldown('calls', 'large');
SELECT name, retry_after_ms FROM quotas_now;
SELECT keypool_clear_cooldown('calls', NULL);
TABLE blocked;
SELECT keypool_clear_cooldown(:'c');
TABLE blocked;

-- As the caller says
SET keypool.test_now = '2026-01-01 21:00:00+00';
SELECT lease AS large FROM keypool_select('calls', 50, 'large-1', except_keys => ARRAY[:'b', :'c']::uuid[]) \gset
SELECT keypool_mark_429(:'a', 10, :'large', 'key');
SELECT keypool_mark_429(:'a', 20, :'large', 'account');
SELECT keypool_mark_429(:'a', 30, :'large', 'quota:output');
TABLE blocked;
SELECT keypool_clear_cooldown('calls', NULL), keypool_clear_cooldown(:'a');
SELECT keypool_mark_429(:'a', 40, :'large', 'quota:nobody');
SELECT keypool_mark_429(:'b', 50, NULL, 'quota:large', 'large-2');
TABLE blocked;
SELECT keypool_clear_cooldown('calls', NULL);
-- One model of one key: the lease's, or the one that is named. The key's others are served, and the model by other keys.
SELECT keypool_mark_429(:'a', 10, :'large', 'model');
SELECT status, blocked_by, blocked_limit, retry_after_ms FROM keypool_peek('calls', 1, 'large-1', except_keys => ARRAY[:'b', :'c']::uuid[]);
SELECT status FROM keypool_peek('calls', 1, 'large-2', except_keys => ARRAY[:'b', :'c']::uuid[]);
SELECT key_label FROM keypool_try_select('calls', 1, 'large-1');
SELECT keypool_mark_429(:'a', 15, NULL, 'model', 'small');
SELECT status, retry_after_ms FROM keypool_peek('calls', 1, 'small', except_keys => ARRAY[:'b', :'c']::uuid[]);
SELECT status FROM keypool_peek('calls', 1, except_keys => ARRAY[:'b', :'c']::uuid[]);
TABLE blocked;
SELECT keypool_clear_cooldown(:'a');
SELECT status FROM keypool_peek('calls', 1, 'small', except_keys => ARRAY[:'b', :'c']::uuid[]);
-- Eight of them are remembered; the ninth blocks the key. No model is known: the key, too.
SELECT count(keypool_mark_429(:'a', 60, NULL, 'model', 'model-' || i)) FROM generate_series(1, 8) i;
SELECT status FROM keypool_peek('calls', 1, 'small', except_keys => ARRAY[:'b', :'c']::uuid[]);
SELECT keypool_mark_429(:'a', 60, NULL, 'model', 'model-9');
SELECT status FROM keypool_peek('calls', 1, 'small', except_keys => ARRAY[:'b', :'c']::uuid[]);
SELECT keypool_mark_429(:'c', 60, NULL, 'model');
TABLE blocked;
SELECT keypool_clear_cooldown(:'a'), keypool_clear_cooldown(:'c');

-- Where no quota is to blame: a quota with limits of cost only never is, and the provider says who is then. The time is its own, too.
SET keypool.test_now = '2026-01-01 22:00:00+00';
SELECT keypool_mark_429(:'c', 10, NULL, NULL, 'large-1');
TABLE blocked;
SELECT keypool_clear_cooldown('calls', NULL);
SELECT keypool_set_quota('calls', 'output', '{"max_output_tpm": null}') IS NOT NULL AS changed;
SELECT keypool_mark_429(:'c', 10, NULL, NULL, 'large-1');
TABLE blocked;
SELECT keypool_clear_cooldown(:'c');
SELECT keypool_set_provider('calls', '{"rate_limit_scope": "model", "default_cooldown": 45, "max_cooldown": 90}');
SELECT keypool_mark_429(:'c', NULL, NULL, NULL, 'large-1');
SELECT keypool_mark_429(:'c', 1000, NULL, NULL, 'large-1');
TABLE blocked;
SELECT status, retry_after_ms FROM keypool_peek('calls', 1, 'large-1', except_keys => ARRAY[:'a', :'b']::uuid[]);
SELECT status FROM keypool_peek('calls', 1, 'large-2', except_keys => ARRAY[:'a', :'b']::uuid[]);

-- A quota that is deleted, made or changed while a call is under way: what is there is settled.
SET keypool.test_now = '2026-01-01 23:00:00+00';
SELECT lease AS large FROM keypool_select('calls', 50, 'large-1', except_keys => ARRAY[:'b', :'c']::uuid[]) \gset
SELECT lease AS second FROM keypool_select('calls', 50, 'large-1', except_keys => ARRAY[:'b', :'c']::uuid[]) \gset
SELECT keypool_delete_quota('calls', 'large');
SELECT keypool_set_quota('calls', 'later', '{"account": "org", "max_rpm": 1}') IS NOT NULL AS made;
SELECT keypool_set_quota('calls', 'org', '{"counts": "uncached"}') IS NOT NULL AS changed;
SELECT keypool_record(:'a', 40, :'large', cached_tokens => 15);
SELECT keypool_mark_429(:'a', 5, :'second');
TABLE quotas_now;
TABLE blocked;

DROP VIEW quotas_now, keys_now, blocked;
DELETE FROM keypool.provider_keys WHERE provider_id = 'calls';
DELETE FROM keypool.quotas WHERE provider_id = 'calls';
DELETE FROM keypool.providers WHERE provider_id = 'calls';
RESET timezone;

-- A model that is blocked on a key makes no other model wait, also if it is asked for while the whole key cools.
SET keypool.test_now = '2026-03-01 00:00:00+00';
SELECT keypool_add_key('apart', 'a', 'sk-apart') AS apart, keypool_add_key('apart', 'b', 'sk-second', 1) \gset
SELECT keypool_mark_429(:'apart', 3600, scope => 'model', model => 'm1'), keypool_mark_429(:'apart', 5, scope => 'key');
SELECT key_label FROM keypool_try_select('apart', model => 'm1');
SET keypool.test_now = '2026-03-01 00:00:06+00';
SELECT key_label FROM keypool_try_select('apart', model => 'm2');
SELECT key_label FROM keypool_try_select('apart', model => 'm1');
DELETE FROM keypool.provider_keys WHERE provider_id = 'apart';

-- A chain of providers: the first that has a key now, with the model that it is asked for.
CREATE FUNCTION pg_temp.refused_chain(arguments text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'SELECT keypool_select_first(' || arguments || ')';
    RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ': ' || SQLERRM;
END $$;
SELECT keypool_add_key('chain-a', 'a', 'sk-chain-a', max_rpm => 1, settings => '{"models": ["large"]}') IS NOT NULL,
       keypool_add_key('chain-b', 'b', 'sk-chain-b', max_rpm => 1) IS NOT NULL;
SELECT provider_id, key_label, status FROM keypool_select_first(ARRAY['chain-a', 'chain-b'], 10, ARRAY['large', NULL]);
SELECT provider_id, key_label, status FROM keypool_select_first(ARRAY['chain-a', 'chain-b'], 10, ARRAY['large', NULL]);
SELECT keypool_mark_429(keypool_add_key('chain-c', 'c', 'sk-chain-c'), 20) IS NOT NULL;
-- Refused: what comes back first, in whatever place; then what waits at all; then the first.
SELECT provider_id, key_label, status, retry_after_ms, blocked_by, blocked_limit FROM keypool_select_first(ARRAY['chain-a', 'chain-c', 'chain-b'], 10, ARRAY['large', NULL, NULL]);
SELECT provider_id, status, retry_after_ms, blocked_limit FROM keypool_select_first(ARRAY['none', 'chain-b'], 10);
SELECT provider_id, status, retry_after_ms FROM keypool_select_first(ARRAY['none', 'chain-a'], 10);
SELECT pg_temp.refused_chain(arguments) FROM (VALUES ('NULL'), ('ARRAY[]::text[]'), ('ARRAY[NULL, ''chain-a'']'),
    ('ARRAY[ARRAY[''chain-a'']]'), ('ARRAY[''chain-a''], 1, ARRAY[''large'', ''small'']'), ('ARRAY[''chain-a''], 1, ARRAY['''']'),
    ('ARRAY['''']'), ('array_fill(''p''::text, ARRAY[101])')) v (arguments);
SELECT keypool_delete_key(id) FROM keypool_list_keys() WHERE provider_id LIKE 'chain-%';
