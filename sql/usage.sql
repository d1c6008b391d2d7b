-- What was used by minute, hour and day, and how often there was no key. Hours and days are UTC's.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET keypool.test_now = '2026-01-01 12:00:00+00';
INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value, max_rpm, max_rpd) VALUES
  ('00000000-0000-8000-8000-000000000001', 'use', 'a', 'sk-a', 4, 10),
  ('00000000-0000-8000-8000-000000000002', 'use', 'b', 'sk-b', 0, 0);
INSERT INTO keypool.quotas (id, provider_id, name, max_tph, max_rpd)
  VALUES ('00000000-0000-8000-8000-000000000003', 'use', 'hour', 1000, 20);
SELECT keypool_record('00000000-0000-8000-8000-000000000001', 100) FROM generate_series(1, 3);
SELECT keypool_record('00000000-0000-8000-8000-000000000002', 50);
SET keypool.test_now = '2026-01-01 12:59:59+00';
SELECT keypool_record('00000000-0000-8000-8000-000000000001', 200) FROM generate_series(1, 2);
SELECT keypool_mark_429('00000000-0000-8000-8000-000000000002', 1);
SET keypool.test_now = '2026-01-01 23:00:00+00';
SELECT keypool_record('00000000-0000-8000-8000-000000000001', 7);
SET keypool.test_now = '2026-01-02 00:00:01+00';
SELECT keypool_record('00000000-0000-8000-8000-000000000001', 9) FROM generate_series(1, 4);

SELECT * FROM keypool_usage('00000000-0000-8000-8000-000000000001');
SELECT * FROM keypool_usage('00000000-0000-8000-8000-000000000001', by => 'hour');
SELECT * FROM keypool_usage('00000000-0000-8000-8000-000000000001', by => 'day');
SELECT * FROM keypool_usage('00000000-0000-8000-8000-000000000002', by => 'hour');
SELECT * FROM keypool_usage('00000000-0000-8000-8000-000000000003', by => 'hour');
SELECT * FROM keypool_usage('00000000-0000-8000-8000-000000000003', by => 'day');
SELECT * FROM keypool_usage('00000000-0000-8000-8000-000000000003');
SELECT * FROM keypool_usage('00000000-0000-8000-8000-000000000004', by => 'hour');
SELECT * FROM keypool_usage('00000000-0000-8000-8000-000000000001', by => 'week');

-- Refusals: the first is posted at once, then those of a second together.
SELECT (keypool_try_select('use', 0, except_keys => '{00000000-0000-8000-8000-000000000002}')).status FROM generate_series(1, 5);
SELECT keypool_select('use', 0, except_keys => '{00000000-0000-8000-8000-000000000002}');
SELECT name, labels, value FROM keypool_metrics('use') WHERE name IN ('keypool_refusals_total', 'keypool_short_seconds') ORDER BY 1, 2;
SET keypool.test_now = '2026-01-02 00:00:02.5+00';
SELECT status FROM keypool_select_first('{use,nobody}', 5000);
SELECT status FROM keypool_select_many('use', 3, 0, except_keys => '{00000000-0000-8000-8000-000000000002}');
SELECT name, labels, value FROM keypool_metrics('use') WHERE name IN ('keypool_refusals_total', 'keypool_short_seconds') ORDER BY 1, 2;
SELECT provider_id, keys_free, short_since, short_seconds FROM keypool_status('use');
SET keypool.test_now = '2026-01-02 00:00:50+00';
SELECT status FROM keypool_try_select('use', 0);
TABLE keypool.status;
SELECT * FROM keypool_provider_usage('use');
SELECT * FROM keypool_provider_usage('use', by => 'day');
SELECT * FROM keypool_provider_usage(by => 'minute');
SELECT * FROM keypool_provider_usage('nobody');
SELECT * FROM keypool_provider_usage('use', by => 'x');
-- A minute later nobody was refused since.
SET keypool.test_now = '2026-01-02 00:02:00+00';
SELECT short_since, short_seconds FROM keypool_status('use');
-- Who waits and is served in the end was not refused, and neither were those that only look.
SELECT status FROM keypool_peek('use', 5000);
SELECT value FROM keypool_metrics('use') WHERE name = 'keypool_refusals_total' AND labels->>'status' = 'too_large';
-- A key that is deleted takes its use along; refusals stay.
SELECT keypool_delete_key('00000000-0000-8000-8000-000000000001');
SELECT * FROM keypool_provider_usage('use', by => 'day');

-- A dump keeps hours and days.
SELECT meter::text ~ ' past_hour=490908/1/50/1/1/50' FROM keypool.key_meters WHERE key_id = '00000000-0000-8000-8000-000000000002';
SELECT keypool_record('00000000-0000-8000-8000-000000000002', 1);
SELECT meter::text ~ ' past_hour=490908/1/50/1/1/50' AS hour, meter::text ~ ' past_day=20454/1/50/1/1/50' AS day,
  meter::text::keypool.meter::text = meter::text AS same
FROM keypool.key_meters WHERE key_id = '00000000-0000-8000-8000-000000000002';

DELETE FROM keypool.provider_keys;
DELETE FROM keypool.quotas;
DELETE FROM keypool.refusals;
RESET keypool.test_now;
