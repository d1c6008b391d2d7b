-- Bad input gets a clear error that names the argument, and changes nothing.
SET keypool.test_now = '2026-01-01 12:00:00+00';
INSERT INTO keypool.provider_keys (id, provider_id, key_value) VALUES
  ('00000000-0000-8000-8000-000000000001', 'bad', 'sk-bad');
\set key '00000000-0000-8000-8000-000000000001'
\set nobody '00000000-0000-8000-8000-00000000000f'

-- provider
SELECT * FROM keypool_select(NULL);
\echo :SQLSTATE
SELECT * FROM keypool_select('');
\echo :SQLSTATE
SELECT * FROM keypool_try_select(repeat('x', 256));
\echo :SQLSTATE
SELECT status FROM keypool_try_select(repeat('x', 255));
SELECT * FROM keypool_peek(E'line\nbreak');
\echo :SQLSTATE
SELECT * FROM keypool_peek(E'del\x7f');
SELECT * FROM keypool_list_keys('');
SELECT count(*) FROM keypool_list_keys('nobody');
SELECT keypool_add_key('', 'label', 'sk');
SELECT keypool_add_key(NULL, 'label', 'sk');

-- tokens
SELECT * FROM keypool_select('bad', -1);
\echo :SQLSTATE
SELECT * FROM keypool_select('bad', 1000000001);
SELECT status FROM keypool_try_select('bad', 1000000000);
SELECT * FROM keypool_select('bad', output_tokens => -1);
SELECT * FROM keypool_select('bad', cached_tokens => 1000000001);
SELECT * FROM keypool_try_select('bad', cost => -1);
SELECT * FROM keypool_peek('bad', cost => 1000000000001);
\echo :SQLSTATE

-- model, except_keys and the number of keys
SELECT * FROM keypool_select('bad', model => '');
\echo :SQLSTATE
SELECT * FROM keypool_try_select('bad', model => repeat('m', 256));
SELECT * FROM keypool_peek('bad', model => E'line\nbreak');
SELECT keypool_record(:'key', model => '');
SELECT keypool_mark_429(:'key', model => repeat('m', 256));
SELECT * FROM keypool_select('bad', except_keys => ARRAY[:'key', NULL]::uuid[]);
\echo :SQLSTATE
SELECT * FROM keypool_explain_select('bad', except_keys => array_fill(:'key'::uuid, ARRAY[1001]));
\echo :SQLSTATE
SELECT * FROM keypool_select_many('bad', 0);
\echo :SQLSTATE
SELECT * FROM keypool_select_many('bad', 1001);
SELECT * FROM keypool_select_many('bad', NULL);
\echo :SQLSTATE

-- key
SELECT keypool_record(NULL);
\echo :SQLSTATE
SELECT keypool_record(:'nobody');
\echo :SQLSTATE
SELECT keypool_release(:'nobody', repeat('A', 45));
SELECT keypool_release(:'key', NULL);
SELECT keypool_mark_429(:'nobody');
SELECT keypool_clear_cooldown(:'nobody');
\echo :SQLSTATE
SELECT keypool_clear_cooldown('bad', 'nobody');
\echo :SQLSTATE
SELECT keypool_mark_429(:'key', 1, scope => 'everything');
\echo :SQLSTATE
SELECT keypool_mark_429(:'key', 1, scope => 'quota:');
SELECT keypool_mark_429(:'key', 1, scope => '');
SELECT keypool_record_many(NULL);
\echo :SQLSTATE
SELECT keypool_record_many(ARRAY[:'key', NULL]::uuid[]);
\echo :SQLSTATE
SELECT keypool_record_many(ARRAY[:'key']::uuid[], ARRAY[1, 2]);
\echo :SQLSTATE
SELECT keypool_record_many(ARRAY[:'key', :'key']::uuid[], leases => ARRAY[NULL]::text[]);
SELECT keypool_toggle_key(:'nobody', true);
\echo :SQLSTATE
SELECT keypool_delete_key(:'nobody');
\echo :SQLSTATE
SELECT * FROM keypool_usage(:'nobody');
\echo :SQLSTATE
SELECT keypool_delete_key(NULL);

-- the rest
SELECT * FROM keypool_usage(:'key', 0);
\echo :SQLSTATE
SELECT * FROM keypool_usage(:'key', 61);
SELECT * FROM keypool_usage(:'key', NULL);
SELECT keypool_toggle_key(:'key', NULL);
SELECT keypool_toggle_key(:'key', false, 0);
\echo :SQLSTATE
SELECT keypool_toggle_key(:'key', true, 60);
SELECT keypool_add_key('bad', NULL, NULL);
\echo :SQLSTATE
SELECT keypool_add_key('bad', NULL, '');
\echo :SQLSTATE
SELECT keypool_add_key('bad', NULL, repeat('s', 8193));
\echo :SQLSTATE
SELECT keypool_add_key('bad', NULL, 'enc:c2VjcmV0');
\echo :SQLSTATE
SELECT keypool_add_key('bad', NULL, 'sk', NULL);
SELECT keypool_add_key('bad', NULL, 'sk', 0, -1);
\echo :SQLSTATE
SELECT keypool_add_key('bad', NULL, 'sk', 0, NULL, -1);
\echo :SQLSTATE
SET keypool.test_now = 'yesterday-ish';
SET keypool.test_now = '1999-01-01';
\set VERBOSITY sqlstate
SET keypool.default_cooldown = 0;
\set VERBOSITY default
SET keypool.unknown = 1;

-- tables: what a key is never changes, and the meters are not for writing
UPDATE keypool.provider_keys SET id = :'nobody' WHERE id = :'key';
\echo :SQLSTATE
UPDATE keypool.provider_keys SET provider_id = 'other' WHERE id = :'key';
\echo :SQLSTATE
UPDATE keypool.key_meters SET key_id = :'nobody' WHERE key_id = :'key';
\echo :SQLSTATE
INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES (E'tab\t', 'sk');
\echo :SQLSTATE
\set VERBOSITY terse
INSERT INTO keypool.provider_keys (provider_id, key_value, max_rpm) VALUES ('bad', 'sk', -1);
\echo :SQLSTATE
INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('bad', NULL);
\echo :SQLSTATE
INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES (NULL, 'sk');
\echo :SQLSTATE
\set VERBOSITY default
SELECT ''::keypool.meter;
\echo :SQLSTATE
SELECT '3'::keypool.meter;
SELECT '2 total_requests=-1'::keypool.meter;
SELECT '2 slot=1/1/1/0/0 slot=65/1/1/0/0'::keypool.meter;
SELECT '1 total_requests=-1'::keypool.meter;
SELECT '1 second=1/1/1 second=65/1/1'::keypool.meter;
SELECT '2 total_requests=3 total_tokens=40 total_output=10 last_used_at=1767268800000000 slot=1767268800/2/30/10/3 minute=29454480/2/30/1 turn=720720 reserved=1767268800/1/1/5/0 open=9212031/1/5/7'::keypool.meter;
SELECT '1 total_requests=3 total_tokens=40 newest_second=1767268800 second=1767268800/2/30 minute=29454480/2/30/1 reserved=1767268800/1/1/1/5'::keypool.meter;

-- how long to wait
SELECT keypool_select('bad', max_wait => '-1 s');
SELECT keypool_try_select('bad', max_wait => '60.000001 s');
SELECT keypool_try_select('bad', max_wait => '1 day');
SELECT keypool_select_first('{bad}', max_wait => '1 month');

-- a read-only transaction
BEGIN READ ONLY;
SELECT * FROM keypool_select('bad');
\echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT keypool_record(:'key');
ROLLBACK;
BEGIN READ ONLY;
SELECT keypool_add_key('bad', 'label', 'sk');
ROLLBACK;
BEGIN READ ONLY;
SELECT status, key_id FROM keypool_peek('bad');
SELECT count(*) FROM keypool_list_keys('bad');
ROLLBACK;

-- nothing of all this changed anything
SELECT total_requests, window_requests, is_active, cooldown_until FROM keypool_list_keys('bad');

-- Amounts of a settlement are never refused: the call was made.
SELECT keypool_record(:'key', -1);
SELECT keypool_record(:'key', 9223372036854775807);
SELECT keypool_record(:'key', 0, output_tokens => -1, cached_tokens => -1, cost => -1);
SELECT total_requests, total_tokens FROM keypool_list_keys('bad');
DELETE FROM keypool.provider_keys WHERE provider_id = 'bad';
