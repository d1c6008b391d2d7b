-- Cooldowns, keys that are switched off and come back, and the computed waiting time.
SET keypool.test_now = '2026-01-01 12:00:00+00';
INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value, max_rpm) VALUES
  ('00000000-0000-8000-8000-000000000001', 'cool', 'a', 'sk-a', 1),
  ('00000000-0000-8000-8000-000000000002', 'cool', 'b', 'sk-b', 1);
\set a '00000000-0000-8000-8000-000000000001'
\set b '00000000-0000-8000-8000-000000000002'

-- The later deadline stands; NULL is the default, 0 is one second, too much is cut, with a NOTICE.
SELECT keypool_mark_429(:'a', 30);
SELECT keypool_mark_429(:'a', 10);
SELECT keypool_mark_429(:'a', 0);
SELECT keypool_mark_429(:'a');
SELECT keypool_mark_429(:'b', 0);
SELECT keypool_mark_429(:'b', 2147483647);
SET keypool.max_cooldown = '2min';
SET keypool.default_cooldown = '1h';
SELECT keypool_clear_cooldown(:'b');
SELECT keypool_mark_429(:'b');
RESET keypool.max_cooldown;
RESET keypool.default_cooldown;
SELECT keypool_mark_429(:'a', -1);
SELECT key_label, last_429_at, cooldown_until FROM keypool_list_keys('cool');
SELECT window_minute, request_count, rate_limited_count FROM keypool_usage(:'a');

-- The earliest to come back decides: cooling for 60 s, or full for 61 s.
SELECT status, retry_after_ms FROM keypool_try_select('cool');
SELECT keypool_clear_cooldown(:'b');
SELECT key_label FROM keypool_select('cool');
SELECT status, retry_after_ms FROM keypool_try_select('cool');
SELECT keypool_mark_429(:'a', 62);
SELECT status, retry_after_ms FROM keypool_try_select('cool');
SELECT * FROM keypool_select('cool');
\echo :SQLSTATE
-- A second earlier it is not, and then it is.
SET keypool.test_now = '2026-01-01 12:01:00.9+00';
SELECT status, retry_after_ms FROM keypool_try_select('cool');
SET keypool.test_now = '2026-01-01 12:01:01+00';
SELECT status, key_label FROM keypool_try_select('cool');
SET keypool.test_now = '2026-01-01 12:01:02+00';
SELECT status, key_label FROM keypool_try_select('cool');

-- A 429 settles its lease as a used request without tokens.
SET keypool.test_now = '2026-01-01 13:00:00+00';
SELECT key_id, lease FROM keypool_select('cool', 500) \gset
SELECT keypool_mark_429(:'key_id', 5, :'lease');
SELECT key_label, window_requests, window_tokens, open_reservations, total_requests, total_tokens, last_used_at
FROM keypool_list_keys('cool') WHERE id = :'key_id';

-- Whatever time a provider gives, its 429 cools the key, and settles its lease. A fraction is kept; less than a second is a second.
\set VERBOSITY terse
SELECT sent.value, keypool_clear_cooldown(:'b') AS cleared, keypool_mark_429(:'b', sent.value) AS until
FROM unnest(ARRAY['-3', '0', '-0.0', '0.5', '1.5', '1.0000001', '3e9', '-1e300', 'NaN', 'Infinity', '-Infinity']::double precision[]) sent (value);
SELECT keypool_mark_429(:'a', 9223372036854775807::bigint);
SELECT keypool_mark_429(:'b', 2.25::numeric);
SELECT keypool_mark_429(:'b', '3.5');
PREPARE untyped AS SELECT keypool_mark_429($1, $2, $3);
SELECT parameter_types FROM pg_prepared_statements WHERE name = 'untyped';
DEALLOCATE untyped;
SELECT keypool_clear_cooldown(:'a');
SELECT keypool_clear_cooldown(:'b');
SET keypool.test_now = '2026-01-01 13:30:00+00';
SELECT key_id, lease FROM keypool_select('cool', 500) \gset
SELECT keypool_mark_429(:'key_id', -3, :'lease');
SELECT window_requests, open_reservations, cooldown_until FROM keypool_list_keys('cool') WHERE id = :'key_id';
-- What is typed text needs a cast, and what is no number at all is refused.
SELECT keypool_mark_429(:'a', '1.5'::text);
\echo :SQLSTATE
SELECT keypool_mark_429(:'a', 'Wed, 21 Oct 2026 07:28:00 GMT');
\echo :SQLSTATE
\set VERBOSITY default

-- Off stays off; off for a time comes back when it is over. Nothing is written for that: the columns stay as they are.
SET keypool.test_now = '2026-01-01 14:00:00+00';
SELECT keypool_toggle_key(:'a', false);
SELECT keypool_toggle_key(:'b', false, 3600);
SELECT key_label, is_active, cooldown_until FROM keypool_list_keys('cool');
SELECT status, retry_after_ms FROM keypool_try_select('cool');
SELECT * FROM keypool_select('cool');
\echo :SQLSTATE
SET keypool.test_now = '2026-01-01 15:00:00+00';
SELECT status, key_label FROM keypool_peek('cool');
SELECT key_label, is_active FROM keypool_list_keys('cool');
SELECT status, key_label FROM keypool_try_select('cool');
SELECT key_label, is_active, cooldown_until FROM keypool_list_keys('cool');
-- Whether or not another is active, and in a transaction that may not write.
SELECT keypool_toggle_key(:'b', true);
SELECT keypool_toggle_key(:'a', false, 1);
SELECT status, key_label FROM keypool_try_select('cool');
SET keypool.test_now = '2026-01-01 15:00:00.999999+00';
SELECT status, key_label FROM keypool_try_select('cool');
SET keypool.test_now = '2026-01-01 15:00:01+00';
BEGIN READ ONLY;
SELECT status, key_label FROM keypool_peek('cool');
ROLLBACK;
SELECT status, key_label FROM keypool_try_select('cool');
SELECT key_label, is_active, window_requests FROM keypool_list_keys('cool');
-- If the clock steps back, it is off again.
SET keypool.test_now = '2026-01-01 14:59:59+00';
SELECT keypool_toggle_key(:'b', false);
SELECT status, retry_after_ms FROM keypool_peek('cool');
SET keypool.test_now = '2026-01-01 17:00:00+00';
SELECT status, key_label FROM keypool_try_select('cool');
SELECT keypool_toggle_key(:'a', true);
SELECT key_label, is_active, cooldown_until FROM keypool_list_keys('cool');

DELETE FROM keypool.provider_keys WHERE provider_id = 'cool';
