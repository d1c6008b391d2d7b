-- Which key is next, and what a selection reserves.
SET keypool.test_now = '2026-01-01 12:00:00+00';
INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value, priority, max_rpm, max_tpm) VALUES
  ('00000000-0000-8000-8000-000000000001', 'select', 'first', 'sk-first', 0, 2, 1000),
  ('00000000-0000-8000-8000-000000000002', 'select', 'second', 'sk-second', 0, 2, NULL),
  ('00000000-0000-8000-8000-000000000003', 'select', 'spare', 'sk-spare', 1, 0, 0);

-- Lowest priority, then the turn: where a key's turns begin, its id decides. Equal keys take turns even while the clock stands
-- still.
SELECT key_id, key_value, key_label, priority, max_rpm, max_tpm, status, retry_after_ms, lease IS NOT NULL AS lease
FROM keypool_select('select', 400);
SELECT key_label, key_value FROM keypool_select('select', 400);
SELECT key_label, key_value FROM keypool_select('select', 400);
SELECT key_label, key_value FROM keypool_select('select');
-- Both are full: the next priority, whose limits of NULL and 0 are none.
SELECT key_label, max_rpm, max_tpm FROM keypool_select('select', 5000);
SELECT key_label, window_requests, window_tokens, open_reservations, total_requests, last_used_at
FROM keypool_list_keys('select');

-- A peek tells the same and changes nothing.
SELECT * FROM keypool_peek('select');
SELECT key_label, open_reservations FROM keypool_list_keys('select') WHERE key_label = 'spare';

-- Tokens in the window must be below max_tpm, and fit together with the new ones.
INSERT INTO keypool.provider_keys (id, provider_id, key_value, max_tpm) VALUES
  ('00000000-0000-8000-8000-000000000011', 'tokens', 'sk-tokens', 1000);
SELECT status FROM keypool_try_select('tokens', 999);
SELECT status, retry_after_ms FROM keypool_try_select('tokens', 2);
SELECT status FROM keypool_try_select('tokens', 1);
SELECT status, retry_after_ms FROM keypool_try_select('tokens', 0);
SELECT status, retry_after_ms FROM keypool_try_select('tokens', 1001);

-- A limit of n requests admits exactly n, and no refused call counts.
INSERT INTO keypool.provider_keys (id, provider_id, key_value, max_rpm) VALUES
  ('00000000-0000-8000-8000-000000000021', 'requests', 'sk-requests', 3);
SELECT status, count(*) FROM generate_series(1, 8), LATERAL keypool_try_select('requests', generate_series * 0) GROUP BY 1 ORDER BY 1;
SELECT window_requests, open_reservations FROM keypool_list_keys('requests');

-- The window is exact: full for 60 seconds and the rest of the second, then free.
SET keypool.test_now = '2026-01-01 12:01:00.999999+00';
SELECT status, retry_after_ms FROM keypool_try_select('requests');
SET keypool.test_now = '2026-01-01 12:01:01+00';
SELECT status, retry_after_ms FROM keypool_try_select('requests');

-- If the clock steps back, the newest second that the key has seen counts as now.
SET keypool.test_now = '2026-01-01 12:00:30+00';
SELECT status FROM keypool_try_select('requests');
SELECT status FROM keypool_try_select('requests');
SELECT status, retry_after_ms FROM keypool_try_select('requests');

-- Priorities at both ends of integer.
INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value, priority, max_rpm) VALUES
  ('00000000-0000-8000-8000-000000000031', 'ends', 'last', 'sk-last', 2147483647, 1),
  ('00000000-0000-8000-8000-000000000032', 'ends', 'first', 'sk-first', -2147483648, 1);
SELECT key_label, priority FROM keypool_select('ends');
SELECT key_label, priority FROM keypool_select('ends');

-- What the errors of keypool_select say.
SELECT * FROM keypool_select('ends');
\echo :SQLSTATE
SELECT * FROM keypool_select('tokens', 1001);
\echo :SQLSTATE
SELECT * FROM keypool_select('nobody');
\echo :SQLSTATE
SELECT status, retry_after_ms FROM keypool_try_select('nobody');
SELECT status, retry_after_ms FROM keypool_peek('nobody');

-- Limits that are changed, and keys that come and go, count at the next call.
UPDATE keypool.provider_keys SET max_rpm = 2 WHERE provider_id = 'ends';
SELECT key_label FROM keypool_select('ends');
DELETE FROM keypool.provider_keys WHERE key_label = 'first' AND provider_id = 'ends';
SELECT key_label FROM keypool_select('ends');
DELETE FROM keypool.provider_keys WHERE provider_id IN ('select', 'tokens', 'requests', 'ends');
SELECT count(*) FROM keypool.key_meters;
