-- A database that the service before left behind moves over in one statement, with nothing lost.
SELECT 'enc:v1:' || master_key_id || ':' AS sealed_by FROM keypool_keyring() WHERE is_primary \gset
SET keypool.test_now = '2026-01-01 12:00:30+00';
SET timezone = 'UTC';
CREATE SCHEMA original;
CREATE TABLE original.provider_keys (id text PRIMARY KEY, provider_id text NOT NULL, key_label text, key_value text NOT NULL,
  priority int NOT NULL DEFAULT 0, max_rpm bigint, max_tpm bigint, is_active bool NOT NULL DEFAULT true,
  last_429_at text, cooldown_until text, total_requests bigint NOT NULL DEFAULT 0,
  total_tokens bigint NOT NULL DEFAULT 0, last_used_at timestamptz, created_at text, updated_at timestamptz);
CREATE TABLE original.key_usage_window (key_id text REFERENCES original.provider_keys ON DELETE CASCADE, window_minute text,
  request_count int NOT NULL, token_count bigint NOT NULL, PRIMARY KEY (key_id, window_minute));
INSERT INTO original.provider_keys VALUES
  ('00000000-0000-4000-8000-000000000001', 'import', 'used', 'sk-plain-one', 0, 4, 1000, true,
   '2026-01-01T11:50:00Z', '2026-01-01T11:51:00.5Z', 123, 45678, '2026-01-01 12:00:20+00', '2025-06-01T00:00:00Z', '2025-07-01 00:00:00+00'),
  ('00000000-0000-4000-8000-000000000002', 'import', 'fresh', 'sk-plain-two', 0, -1, 0, true,
   NULL, NULL, 0, 0, NULL, '2025-06-02T00:00:00Z', NULL),
  ('00000000-0000-4000-8000-000000000003', 'import', 'cooling', 'sk-plain-three', 0, NULL, NULL, true,
   '2026-01-01T12:00:00Z', '2026-01-01T12:10:00Z', 7, 70, '2026-01-01 11:59:59+00', NULL, NULL),
  ('00000000-0000-4000-8000-000000000004', 'import', 'off for a time', 'sk-plain-four', 0, NULL, NULL, false,
   NULL, '2026-01-01T12:05:00Z', 0, 0, NULL, NULL, NULL),
  ('00000000-0000-4000-8000-000000000005', 'import', 'off', 'enc:' || repeat('A', 60), 0, NULL, NULL, false,
   NULL, NULL, 9223372036854775807, 1, NULL, NULL, NULL);
INSERT INTO original.key_usage_window VALUES
  ('00000000-0000-4000-8000-000000000001', '2026-01-01T12:00', 1, 100),
  ('00000000-0000-4000-8000-000000000001', '2026-01-01T11:59', 2, 200),
  ('00000000-0000-4000-8000-000000000001', '2026-01-01T11:58', 50, 5000),
  ('00000000-0000-4000-8000-000000000003', '2026-01-01T11:59', 7, 70);

SELECT * FROM keypool_import('original.provider_keys', 'original.key_usage_window');
-- What was used in the running minute counts as used now, and so the last use is not before that.
SELECT key_label, priority, max_rpm, max_tpm, is_active, last_429_at, cooldown_until, total_requests, total_tokens, last_used_at
FROM keypool_list_keys('import');
SELECT key_label, created_at, updated_at FROM keypool_list_keys('import') WHERE key_label IN ('used', 'fresh');
SELECT key_label, inactive_until FROM keypool.provider_keys WHERE NOT is_active ORDER BY id;
SELECT key_label, starts_with(key_value, :'sealed_by') AS sealed FROM keypool.provider_keys ORDER BY id;
SELECT window_minute, request_count, token_count FROM keypool_usage('00000000-0000-4000-8000-000000000001');

-- What was used in the last minute counts against the limits: 3 of 4 requests.
SELECT key_label, window_requests, window_tokens FROM keypool_list_keys('import') WHERE key_label IN ('used', 'cooling');
-- Turns begin anew.
SELECT key_label, key_value FROM keypool_select('import');
SELECT keypool_toggle_key('00000000-0000-4000-8000-000000000002', false);
SELECT key_label, key_value FROM keypool_select('import');
SELECT status, retry_after_ms FROM keypool_try_select('import');

-- Twice is refused as a whole, and so is what is not such a table.
\set VERBOSITY terse
SELECT * FROM keypool_import('original.provider_keys', 'original.key_usage_window');
\echo :SQLSTATE
SELECT * FROM keypool_import('original.key_usage_window');
\echo :SQLSTATE
SELECT * FROM keypool_import('original.provider_keys', 'original.provider_keys');
\echo :SQLSTATE
SELECT * FROM keypool_import(NULL);
SELECT * FROM keypool_import('original.provider_keys', NULL, 'Nowhere/Land');
\echo :SQLSTATE
-- So is a column that was dropped.
BEGIN;
ALTER TABLE original.provider_keys DROP last_429_at;
SELECT * FROM keypool_import('original.provider_keys', 'original.key_usage_window');
ROLLBACK;
BEGIN;
ALTER TABLE original.key_usage_window RENAME token_count TO tokens;
SELECT * FROM keypool_import('original.provider_keys', 'original.key_usage_window');
ROLLBACK;
\set VERBOSITY default
DELETE FROM keypool.provider_keys;
-- White space at the ends of a secret is cut; what is refused is named, and so is a secret that is there twice.
\set SHOW_CONTEXT never
BEGIN;
UPDATE original.provider_keys SET key_value = E'sk-plain-one\r\n' WHERE key_label = 'used';
SELECT * FROM keypool_import('original.provider_keys');
SELECT key_value FROM generate_series(1, 3) i, keypool_try_select('import', i * 0) WHERE key_label = 'used';
ROLLBACK;
BEGIN;
UPDATE original.provider_keys SET key_value = E'sk-plain-one\nsk-plain-two' WHERE key_label = 'used';
SELECT * FROM keypool_import('original.provider_keys');
ROLLBACK;
BEGIN;
UPDATE original.provider_keys SET provider_id = 'import ' WHERE key_label = 'off';
SELECT * FROM keypool_import('original.provider_keys');
ROLLBACK;
BEGIN;
UPDATE original.provider_keys SET key_label = repeat('x', 1025) WHERE key_label = 'off';
SELECT * FROM keypool_import('original.provider_keys');
ROLLBACK;
BEGIN;
UPDATE original.provider_keys SET key_value = 'sk-plain-two' WHERE key_label = 'cooling';
SELECT * FROM keypool_import('original.provider_keys');
\echo :SQLSTATE
ROLLBACK;
\set SHOW_CONTEXT errors
-- Without windows; times without a zone are of the zone that is given.
UPDATE original.provider_keys SET cooldown_until = '2026-01-01T12:10:00' WHERE key_label = 'cooling';
SELECT * FROM keypool_import('original.provider_keys', time_zone => 'America/New_York');
SELECT cooldown_until FROM keypool_list_keys('import') WHERE key_label = 'cooling';
SELECT count(*) FROM keypool.key_usage_window;
DELETE FROM keypool.provider_keys;
DROP SCHEMA original CASCADE;
