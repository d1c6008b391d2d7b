-- What providers answer: classes, what they block, breakers, and rules of one's own.
\pset null ~
SET keypool.test_now = '2026-11-26 16:00:00+00';

CREATE FUNCTION pg_temp.refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ': ' || SQLERRM;
END $$;

-- Selects a key, and reports what came of it; at a second of the clock.
CREATE FUNCTION pg_temp.call(at_second integer, http_status bigint, headers text DEFAULT NULL, error_code text DEFAULT NULL,
    body text DEFAULT NULL, provider text DEFAULT 'ans', tokens bigint DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    s record;
    r record;
BEGIN
    PERFORM set_config('keypool.test_now', (timestamptz '2026-11-26 16:00:00+00' + make_interval(secs => at_second))::text, false);
    SELECT * INTO s FROM keypool_try_select(provider, 10);
    IF s.status <> 'ok' THEN RETURN format('%s by %s, %s, in %s ms', s.status, s.blocked_by, s.blocked_limit, s.retry_after_ms); END IF;
    SELECT * INTO r FROM keypool_report(s.key_id, s.lease, http_status, headers, error_code, body, tokens);
    RETURN format('%s: %s, %s, %s ms, settled %s', s.key_label, r.class, r.action, coalesce(r.retry_after_ms::text, 'no'), r.settled);
END $$;

SELECT keypool_add_key('ans', 'one', 'sk-one') IS NOT NULL;

-- A success counts what was used; what was refused used nothing, unless it says so; what broke may have used its estimate.
SELECT pg_temp.call(0, 200, tokens => 7);
SELECT pg_temp.call(0, 200);
SELECT pg_temp.call(0, 400);
SELECT pg_temp.call(0, 400, tokens => 3);
SELECT pg_temp.call(0, 200, error_code => 'broken');
SELECT pg_temp.call(0, NULL, error_code => 'cancelled');
SELECT pg_temp.call(0, NULL, error_code => 'connect');
SELECT total_requests, total_tokens, in_flight FROM keypool_list_keys('ans');

-- A limit blocks for the time that it tells.
SELECT pg_temp.call(2, 429, '{"Retry-After": "20"}');
SELECT pg_temp.call(3, 200);
SELECT pg_temp.call(22, 200);
-- Or for the provider's default, also after garbage.
SELECT keypool_set_provider('ans', '{"default_cooldown": 7}');
SELECT pg_temp.call(23, 429, 'garbage' || chr(1), NULL, '{{{');
SELECT pg_temp.call(24, 200);
-- Or until its day is over.
SELECT keypool_set_provider('ans', '{"time_zone": "America/Los_Angeles"}');
SELECT pg_temp.call(30, 429, NULL, NULL, '{"error": {"status": "RESOURCE_EXHAUSTED", "details": [{"violations": [{"quotaId": "RequestsPerDay"}]}]}}');
SELECT pg_temp.call(31, 200);
SELECT keypool_clear_cooldown(keypool_key('ans', 'one'));

-- A key that is not accepted rests, and one call tries it again.
SELECT pg_temp.call(40, 401);
SELECT pg_temp.call(41, 200);
SELECT pg_temp.call(640, 401);
SELECT pg_temp.call(641, 200);
SELECT pg_temp.call(1840, 200);
SELECT pg_temp.call(1841, 200);
-- By hand.
SELECT pg_temp.call(1850, 401);
SELECT keypool_clear_cooldown(keypool_key('ans', 'one'));
SELECT pg_temp.call(1851, 200);
-- Failures in a row, as many as the provider's threshold says.
SELECT keypool_set_provider('ans', '{"breaker_threshold": 3}');
SELECT pg_temp.call(1860 + i, 500) FROM generate_series(1, 2) i;
SELECT pg_temp.call(1863, 200);
SELECT pg_temp.call(1863 + i, 500) FROM generate_series(1, 4) i;
SELECT pg_temp.call(1880, 200);
SELECT keypool_set_provider('ans', '{"breaker_threshold": 0}');
SELECT count(pg_temp.call(1880 + i, 500)) FROM generate_series(1, 20) i;
SELECT pg_temp.call(1901, 200);
-- A provider that has too much to do costs the key nothing; the time that is told doubles.
SELECT pg_temp.call(1902 + i, 529) FROM generate_series(1, 7) i;
SELECT pg_temp.call(1910, 503, 'Retry-After: 33');
SELECT pg_temp.call(1911, 200);
SELECT pg_temp.call(1912, 529);

-- At most half of a provider's keys rest because of what may lie elsewhere; the others are suspect for a minute.
SELECT keypool_add_key('half', 'k' || i, 'sk-half-' || i, i) IS NOT NULL FROM generate_series(1, 5) i;
SELECT pg_temp.call(2000, 401, provider => 'half') FROM generate_series(1, 6) i;
SELECT blocked_limit, retry_after_ms FROM keypool_explain_select('half') ORDER BY priority;
SELECT pg_temp.call(2060, 200, provider => 'half') FROM generate_series(1, 1) i;
SELECT pg_temp.call(2600, 200, provider => 'half') FROM generate_series(1, 1) i;

-- Who does not pay is the account: its quotas rest, and with them its keys.
SELECT keypool_add_key('bill', 'k' || i, 'sk-bill-' || i, i, settings => format('{"account": "org/%s"}', i)::jsonb) IS NOT NULL FROM generate_series(1, 2) i;
SELECT keypool_set_quota('bill', 'org', '{"account": "org"}') IS NOT NULL, keypool_set_quota('bill', 'all', '{}') IS NOT NULL;
SELECT pg_temp.call(3000, 402, provider => 'bill') FROM generate_series(1, 2);
SELECT pg_temp.call(6600, 200, provider => 'bill') FROM generate_series(1, 2);

-- A changed secret: what was said of the old one, by calls from before, is no news of the new one.
SELECT keypool_add_key('new', 'one', 'sk-one') IS NOT NULL;
SELECT pg_temp.call(8000, 401, provider => 'new');
SELECT pg_temp.call(8001, 200, provider => 'new');
SELECT keypool_set_secret(keypool_key('new', 'one'), 'sk-two');
SELECT pg_temp.call(8001, 401, provider => 'new');
SELECT pg_temp.call(8002, 401, provider => 'new');
SELECT keypool_update_key(keypool_key('new', 'one'), '{"priority": 1}');
SELECT pg_temp.call(8003, 200, provider => 'new');
UPDATE keypool.provider_keys SET key_value = 'sk-three' WHERE provider_id = 'new';
SELECT pg_temp.call(8004, 200, provider => 'new');
-- One that is rolled back changes nothing.
SELECT pg_temp.call(8005, 401, provider => 'new');
BEGIN;
SAVEPOINT part;
SELECT keypool_set_secret(keypool_key('new', 'one'), 'sk-four');
ROLLBACK TO part;
COMMIT;
SELECT pg_temp.call(8006, 200, provider => 'new');
BEGIN;
SELECT keypool_set_secret(keypool_key('new', 'one'), 'sk-four');
SELECT pg_temp.call(8006, 200, provider => 'new');
ROLLBACK;
SELECT pg_temp.call(8006, 200, provider => 'new');
BEGIN;
SAVEPOINT part;
SELECT keypool_set_secret(keypool_key('new', 'one'), 'sk-four');
RELEASE part;
COMMIT;
SELECT pg_temp.call(8006, 200, provider => 'new');
-- Nor does a call from before say anything of one where all was well.
SELECT keypool_add_key('well', 'one', 'sk-one') IS NOT NULL;
SELECT key_id AS key, lease FROM keypool_try_select('well') \gset
SELECT keypool_set_secret(:'key', 'sk-two');
SELECT class FROM keypool_report(:'key', :'lease', 401);
SELECT pg_temp.call(8007, 200, provider => 'well');

-- What remains, where a meter counts the same: somebody else has used the key. In the second in which it was said, once.
SELECT keypool_add_key('left', 'one', 'sk-left', max_rpm => 500, settings => '{"account": "org"}') IS NOT NULL;
SELECT keypool_set_quota('left', 'input', '{"account": "org", "max_tpm": 30000, "counts": "prompt"}') IS NOT NULL;
SELECT pg_temp.call(9000, 200, '{"x-ratelimit-limit-requests": 500, "x-ratelimit-remaining-requests": 400,
    "anthropic-ratelimit-input-tokens-limit": "30000", "anthropic-ratelimit-input-tokens-remaining": "9000"}', provider => 'left', tokens => 10);
SELECT pg_temp.call(9000, 200, '{"x-ratelimit-limit-requests": 500, "x-ratelimit-remaining-requests": 400}', provider => 'left', tokens => 10);
SELECT k.window_requests, k.window_tokens, k.total_requests, k.total_tokens, q.window_tokens FROM keypool_list_keys('left') k, keypool_list_quotas('left') q;
-- Not if it is old, of another limit, or of a call that took longer and does not say how old it is.
SELECT keypool_report(key_id, lease, 200, '{"x-ratelimit-limit-requests": 500, "x-ratelimit-remaining-requests": 1}', headers_age_ms => age)
    FROM generate_series(5000, 60000, 5000) age, LATERAL keypool_try_select('left', age * 0 + 10);
SELECT pg_temp.call(9001, 200, '{"x-ratelimit-limit-requests": 501, "x-ratelimit-remaining-requests": 1}', provider => 'left', tokens => 10);
SELECT key_id AS key, lease FROM keypool_try_select('left', 10) \gset
SET keypool.test_now = '2026-11-26 18:30:04+00';
SELECT * FROM keypool_report(:'key', :'lease', 200, '{"x-ratelimit-limit-requests": 500, "x-ratelimit-remaining-requests": 1}');
SELECT window_requests, total_requests FROM keypool_list_keys('left');
-- But that nothing is left of another limit keeps requests out until more is.
SELECT pg_temp.call(9005, 200, '{"x-ratelimit-limit-requests": 20, "x-ratelimit-remaining-requests": 0, "x-ratelimit-reset-requests": "20s"}', provider => 'left', tokens => 10);
SELECT pg_temp.call(9006, 200, provider => 'left');
-- Not if that is old, or of a call that was refused.
SELECT pg_temp.call(9025, 400, '{"x-ratelimit-limit-requests": 20, "x-ratelimit-remaining-requests": 0, "x-ratelimit-reset-requests": "90s"}', provider => 'left');
SELECT keypool_report(key_id, lease, 200, '{"x-ratelimit-limit-requests": 20, "x-ratelimit-remaining-requests": 0, "x-ratelimit-reset-requests": "90s"}', headers_age_ms => 5000)
    FROM keypool_try_select('left', 10);
SELECT pg_temp.call(9025, 200, provider => 'left');
-- Where a 429 blocks a model, so does this.
SELECT keypool_add_key('by model', 'one', 'sk-by-model') IS NOT NULL;
SELECT keypool_set_provider('by model', '{"rate_limit_scope": "model"}');
SELECT class FROM keypool_try_select('by model', 10, 'a') s, keypool_report(s.key_id, s.lease, 200,
    '{"x-ratelimit-limit-requests": 20, "x-ratelimit-remaining-requests": 0, "x-ratelimit-reset-requests": "90s"}');
SELECT model, status, retry_after_ms FROM unnest('{a,b}'::text[]) model, LATERAL keypool_peek('by model', 10, model);

-- What others failed of is no overload of this key's.
SELECT keypool_add_key('mixed', 'one', 'sk-mixed') IS NOT NULL;
CREATE TEMP TABLE mixed AS SELECT s.key_id, s.lease, i FROM generate_series(1, 6) i, LATERAL keypool_try_select('mixed', i * 0) s;
SELECT class, retry_after_ms FROM mixed, LATERAL keypool_report(key_id, lease, CASE WHEN i < 6 THEN 500 ELSE 529 END) ORDER BY i;

-- A key that cools after it was suspect is not suspect any more.
INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value, priority) VALUES
  ('00000000-0000-8000-8000-000000000011', 'two', 'one', 'sk-one', 1), ('00000000-0000-8000-8000-000000000012', 'two', 'two', 'sk-two', 2);
SELECT pg_temp.call(9100 + i, 401, provider => 'two') FROM generate_series(0, 1) i;
SELECT key_label, breaker, breaker_until, breaker_reason FROM keypool_list_keys('two');
SET keypool.test_now = '2026-11-26 18:33:00+00';
SELECT keypool_mark_429(keypool_key('two', 'two'), 3600);
SELECT key_label, breaker, breaker_until, breaker_reason FROM keypool_list_keys('two');

-- Rules of one's own.
SELECT keypool_set_error_rule('an*', 529, NULL, 'rate', 'key'), keypool_set_error_rule('*', NULL, 'Teapot_*', 'billing');
SELECT provider, http_status, error_code, class, scope FROM keypool.error_rules ORDER BY provider;
SELECT class, rule, effect FROM keypool_explain_answer('ans', 529);
SELECT class, rule FROM keypool_explain_answer('other', 529);
SELECT class, rule FROM keypool_explain_answer('other', 418, NULL, 'TEAPOT_X');
SELECT pg_temp.call(7000, 529, 'retry-after-ms: 1500');
SELECT keypool_set_error_rule('an*', 529, NULL, NULL);
SELECT class, rule FROM keypool_explain_answer('ans', 529);
SELECT pg_temp.refused($$SELECT keypool_set_error_rule('', 529, NULL, 'rate')$$);
SELECT pg_temp.refused($$SELECT keypool_set_error_rule(NULL, 529, NULL, 'rate')$$);
SELECT pg_temp.refused($$SELECT keypool_set_error_rule('*', 99, NULL, 'rate')$$);
SELECT pg_temp.refused($$SELECT keypool_set_error_rule('*', NULL, NULL, 'rate')$$);
SELECT pg_temp.refused($$SELECT keypool_set_error_rule('*', 529, NULL, 'teapot')$$);
SELECT pg_temp.refused($$SELECT keypool_set_error_rule('*', 529, NULL, 'rate', 'nobody')$$);
SELECT pg_temp.refused(format($$SELECT keypool_set_error_rule('*', NULL, %L, 'rate')$$, repeat('x', 64)));

-- Nothing that is reported raises.
SELECT id AS key FROM keypool_list_keys('ans') \gset
SELECT * FROM keypool_report(:'key', 'no lease', 200);
SELECT * FROM keypool_report(:'key', NULL, -5, 'x', repeat('y', 1000), 'z', -1, -1, -1, -1, -1);
SELECT pg_temp.refused($$SELECT keypool_report('00000000-0000-0000-0000-000000000000', NULL, 200)$$);
SELECT pg_temp.refused($$SELECT keypool_report(NULL, NULL, 200)$$);
SELECT keypool_delete_key(id) FROM keypool_list_keys() WHERE provider_id IN ('ans', 'half', 'bill', 'left', 'new', 'by model', 'mixed', 'two', 'well');
DELETE FROM keypool.quotas WHERE provider_id IN ('bill', 'left');
DELETE FROM keypool.error_rules;
DELETE FROM keypool.providers WHERE provider_id IN ('ans', 'by model');
