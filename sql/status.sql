-- keypool.status: each provider at a look.
SET keypool.test_now = '2026-01-01 12:00:00+00';
INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value, max_rpm, max_in_flight, account, models) VALUES
  ('00000000-0000-8000-8000-000000000001', 'sta', 'a', 'sk-a', 2, 0, 'org', NULL),
  ('00000000-0000-8000-8000-000000000002', 'sta', 'b', 'sk-b', 0, 1, NULL, '{m*}'),
  ('00000000-0000-8000-8000-000000000003', 'sta', NULL, 'sk-c', 0, 0, NULL, NULL),
  ('00000000-0000-8000-8000-000000000004', 'a provider with a long name', 'd', 'sk-d', 0, 0, NULL, NULL);
SELECT keypool_set_quota('sta', 'month of org', '{"account": "org", "max_requests_per_month": 100}') IS NOT NULL,
  keypool_set_quota('quotas alone', 'q', '{"max_rpm": 1}') IS NOT NULL;
TABLE keypool.status;
SELECT * FROM keypool_status('sta');

-- Keys by what they would say of a request now: full, busy, cooling, off; and what is used most.
SELECT keypool_record('00000000-0000-8000-8000-000000000001') FROM generate_series(1, 3);
SELECT key_label FROM keypool_try_select('sta', 0, 'm1');
SELECT keypool_mark_429('00000000-0000-8000-8000-000000000003', 30);
TABLE keypool.status;
SELECT * FROM keypool_status('sta');
SELECT key_label, state FROM keypool.keys ORDER BY id;
SELECT keypool_toggle_key('00000000-0000-8000-8000-000000000002', false);
UPDATE keypool.provider_keys SET max_rpm = 0 WHERE key_label = 'a';
UPDATE keypool.provider_keys SET expires_at = '2026-01-01 12:00:01+00' WHERE key_label = 'd';
SET keypool.test_now = '2026-01-01 12:00:01+00';
TABLE keypool.status;

-- Whatever is wrong with a key or a quota, it is a state.
ALTER TABLE keypool.provider_keys DISABLE TRIGGER before_key_change;
UPDATE keypool.provider_keys SET key_value = 'enc:v1:gone:' || repeat('A', 60) WHERE key_label = 'a';
ALTER TABLE keypool.provider_keys ENABLE ALWAYS TRIGGER before_key_change;
ALTER TABLE keypool.quotas DISABLE TRIGGER before_quota_change;
INSERT INTO keypool.quotas (id, provider_id, name) SELECT gen_random_uuid(), 'sta', 'q' || i FROM generate_series(1, 4) i;
ALTER TABLE keypool.quotas ENABLE ALWAYS TRIGGER before_quota_change;
SELECT * FROM keypool_status('sta');
SELECT * FROM keypool_status('nobody');
SELECT * FROM keypool_status('');

DELETE FROM keypool.provider_keys;
DELETE FROM keypool.quotas;
RESET keypool.test_now;
