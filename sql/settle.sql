-- What becomes of a selection: record, release, with a lease and without.
SET keypool.test_now = '2026-01-01 12:00:00+00';
INSERT INTO keypool.provider_keys (id, provider_id, key_value, max_rpm, max_tpm) VALUES
  ('00000000-0000-8000-8000-000000000001', 'settle', 'sk-settle', 10, 1000),
  ('00000000-0000-8000-8000-000000000002', 'other', 'sk-other', NULL, NULL),
  ('00000000-0000-8000-8000-00000000000a', 'aged', 'sk-aged', NULL, NULL);
CREATE VIEW seen AS
  SELECT window_requests AS requests, window_tokens AS tokens, open_reservations AS open, total_requests, total_tokens, last_used_at
  FROM keypool_list_keys('settle');

-- With a lease: the request stays, the real tokens take the estimate's place.
SELECT key_id, lease AS first FROM keypool_select('settle', 600) \gset
TABLE seen;
SET keypool.test_now = '2026-01-01 12:00:10+00';
SELECT keypool_record(:'key_id', 150, :'first');
TABLE seen;
-- The same lease again, whatever it says: it was settled before, and nothing counts, totals included.
SELECT keypool_record(:'key_id', 5, :'first');
SELECT keypool_record(:'key_id', NULL, :'first');
SELECT keypool_record(:'key_id', -5, :'first');
TABLE seen;

-- A lease gives back the whole reservation; a second time, or after it was settled, nothing. What was released is settled.
SELECT lease AS second FROM keypool_select('settle', 300) \gset
SELECT keypool_release(:'key_id', :'second');
SELECT keypool_release(:'key_id', :'second');
SELECT keypool_record(:'key_id', 5, :'second');
SELECT keypool_release(:'key_id', :'first');
TABLE seen;

-- Without a lease: the oldest open reservation; with none open, one request now.
SELECT lease AS third FROM keypool_select('settle', 100) \gset
SET keypool.test_now = '2026-01-01 12:00:11+00';
SELECT lease AS fourth FROM keypool_select('settle', 200) \gset
SELECT keypool_record(:'key_id', 1);
TABLE seen;
SELECT keypool_record(:'key_id');
SELECT keypool_record(:'key_id', NULL);
TABLE seen;

-- The request counted in the second of its selection, the tokens in the second of the record.
SET keypool.test_now = '2026-01-01 12:01:00+00';
TABLE seen;
SET keypool.test_now = '2026-01-01 12:01:01+00';
TABLE seen;
SET keypool.test_now = '2026-01-01 12:01:10+00';
TABLE seen;
SET keypool.test_now = '2026-01-01 12:01:11+00';
TABLE seen;
SET keypool.test_now = '2026-01-01 12:01:12+00';
TABLE seen;

-- A lease of an hour ago changes no request count, but its tokens count: whether it was settled is known for 64 seconds.
SET keypool.test_now = '2026-01-01 13:00:00+00';
SELECT keypool_record(:'key_id', 7, :'fourth');
TABLE seen;

-- A reservation that is never settled leaves the window by itself.
SELECT status FROM keypool_try_select('settle', 900);
SELECT status, retry_after_ms FROM keypool_try_select('settle', 900);
SET keypool.test_now = '2026-01-01 13:01:01+00';
SELECT status FROM keypool_try_select('settle', 900);

-- Leases of other keys, and texts that are no leases, are refused and change nothing; to a 429 they are as none.
SELECT lease AS foreign_lease FROM keypool_select('other', 1) \gset
SELECT keypool_record(:'key_id', 1, :'foreign_lease');
\echo :SQLSTATE
SELECT keypool_release(:'key_id', :'foreign_lease');
\echo :SQLSTATE
SELECT keypool_mark_429(:'key_id', 1, :'foreign_lease');
SELECT keypool_clear_cooldown(:'key_id');
SELECT open_reservations FROM keypool_list_keys('other');
\set VERBOSITY terse
SELECT keypool_record(:'key_id', 1, '');
\echo :SQLSTATE
SELECT keypool_record(:'key_id', 1, '0');
SELECT keypool_record(:'key_id', 1, '-1');
SELECT keypool_record(:'key_id', 1, '9223372036854775807');
SELECT keypool_record(:'key_id', 1, repeat('A', 45));
SELECT keypool_record(:'key_id', 1, left(:'first', -1));
SELECT keypool_record(:'key_id', 1, :'first' || 'A');
SELECT keypool_record(:'key_id', 1, :'first' || ' ');
SELECT keypool_record(:'key_id', 1, '=' || substr(:'first', 2));
SELECT keypool_record(:'key_id', 1, overlay(:'first' PLACING CASE substr(:'first', 8, 1) WHEN 'A' THEN 'B' ELSE 'A' END FROM 8 FOR 1));
SELECT keypool_release(:'key_id', '1767268800');
\echo :SQLSTATE
-- A lease of 0.1.0 was a number.
SELECT keypool_record(:'key_id', 1, 1767268800);
SELECT keypool_release(:'key_id', 1767268800);
\echo :SQLSTATE
\set VERBOSITY default
-- One that is too old is told, and counts in totals and usage only; it cannot be released, and a 429 cools all the same.
SET keypool.test_now = '2026-01-01 01:00:00+00';
SELECT lease AS old_lease FROM keypool_select('aged') \gset
SET keypool.test_now = '2026-01-01 12:00:00+00';
SELECT keypool_record('00000000-0000-8000-8000-00000000000a', 1, :'old_lease');
SELECT keypool_release('00000000-0000-8000-8000-00000000000a', :'old_lease');
SELECT keypool_mark_429('00000000-0000-8000-8000-00000000000a', 1, :'old_lease');
SELECT window_requests, window_tokens, total_requests, total_tokens, last_429_at FROM keypool_list_keys('aged');
SELECT request_count, token_count, rate_limited_count FROM keypool_usage('00000000-0000-8000-8000-00000000000a');
SET keypool.test_now = '2026-01-01 13:01:01+00';
TABLE seen;

-- Usage by minute, newest first.
SELECT window_minute, request_count, token_count, rate_limited_count FROM keypool_usage(:'key_id');
SELECT window_minute, request_count, token_count, rate_limited_count FROM keypool_usage(:'key_id', 1);
SELECT keypool_record(:'key_id', 3);
SELECT window_minute, request_count, token_count, rate_limited_count FROM keypool_usage(:'key_id', 1);
SELECT * FROM keypool.key_usage_window WHERE key_id = :'key_id';

-- What is reserved and recorded stays when the transaction rolls back.
SET keypool.test_now = '2026-01-01 14:00:00+00';
BEGIN;
SELECT status FROM keypool_try_select('settle', 10);
SELECT keypool_record(:'key_id', 20);
SELECT keypool_mark_429(:'key_id', 5);
ROLLBACK;
TABLE seen;
SELECT cooldown_until FROM keypool_list_keys('settle');

-- A record that waits for the disk takes a transaction id, a selection and a release do not; nor does a record that does not wait.
BEGIN;
SELECT key_id, lease FROM keypool_select('other') \gset
SELECT keypool_release(:'key_id', :'lease');
SELECT pg_current_xact_id_if_assigned() IS NULL AS without_id;
SELECT keypool_record(:'key_id', 1);
SELECT pg_current_xact_id_if_assigned() IS NULL AS without_id;
COMMIT;
BEGIN;
SET LOCAL synchronous_commit = off;
SELECT keypool_record(:'key_id', 1);
SELECT pg_current_xact_id_if_assigned() IS NULL AS without_id;
COMMIT;

DROP VIEW seen;
DELETE FROM keypool.provider_keys WHERE provider_id IN ('settle', 'other', 'aged');
