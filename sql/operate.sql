-- What operators look at: open calls, and numbers for a collector; and what they do when a gateway has died.
SET keypool.test_now = '2026-01-01 12:00:00+00';
INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value, max_rpm, max_in_flight, account) VALUES
  ('00000000-0000-8000-8000-000000000001', 'ope', 'a', 'sk-a', 10, 3, 'org'),
  ('00000000-0000-8000-8000-000000000002', 'ope', 'b', 'sk-b', 0, 0, 'org');
SELECT keypool_set_quota('ope', 'org', '{"account": "org", "max_in_flight": 4, "max_tpm": 1000}') IS NOT NULL,
  keypool_set_quota('ope', 'm', '{"models": ["m*"], "max_rpm": 8}') IS NOT NULL;
CREATE TEMP TABLE begun AS SELECT n, s.* FROM generate_series(1, 3) n, LATERAL keypool_try_select('ope', n * 10, 'm1') s;
SET keypool.test_now = '2026-01-01 12:05:00+00';
SELECT key_label FROM keypool_try_select('ope', 7);
SELECT key_label, selected_from, selected_until, age_seconds, calls, tokens FROM keypool.open_calls ORDER BY key_label, selected_from;
SELECT status, blocked_by, blocked_limit FROM keypool_try_select('ope');

-- Of a key: its calls, and as much of the quotas that ask for no model.
SELECT keypool_drop_open_calls('ope', '00000000-0000-8000-8000-000000000001');
SELECT key_label, in_flight FROM keypool_list_keys('ope');
SELECT name, in_flight FROM keypool_list_quotas('ope');
-- Of all.
SELECT keypool_drop_open_calls('ope');
SELECT count(*) FROM keypool_open_calls('ope');
SELECT name, in_flight FROM keypool_list_quotas('ope');
-- Who was only slow settles all the same.
SELECT key_label, keypool_record(key_id, 15, lease) FROM begun WHERE n = 1;
SELECT name, total_requests, total_tokens, in_flight FROM keypool_list_quotas('ope');
DO $$ BEGIN PERFORM keypool_drop_open_calls('other', '00000000-0000-8000-8000-000000000001');
EXCEPTION WHEN OTHERS THEN RAISE NOTICE '%: %', sqlstate, sqlerrm; END $$;

SELECT keypool_mark_429('00000000-0000-8000-8000-000000000002', 60, scope => 'key');
SELECT * FROM keypool.metrics;
SELECT name, labels ->> 'label' AS label, labels ->> 'state' AS state, value FROM keypool_metrics('ope', true) WHERE name LIKE 'keypool_key\_%' AND value <> 0;
-- Settled once more, it counts as that only.
SELECT keypool_record(key_id, 5, lease), keypool_record(key_id, 5, lease), keypool_release(key_id, lease) FROM keypool_select('ope');
SELECT name, labels, value FROM keypool.metrics WHERE name ~ 'settled_twice|^keypool_requests';
-- The keyring is no provider's.
SELECT * FROM keypool_metrics('nobody') WHERE value <> 0;
SELECT s.key_label, r.class FROM keypool_select('ope') s, keypool_report(s.key_id, s.lease, 401) r;
SET keypool.test_now = '2026-01-01 12:06:30+00';
SELECT * FROM keypool.metrics WHERE name LIKE 'keypool_breaker%';

DELETE FROM keypool.provider_keys;
DELETE FROM keypool.quotas;
RESET keypool.test_now;
