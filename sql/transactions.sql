-- Many changes in one transaction: each is seen by the next command of its own session, and undone with its part of the
-- transaction.
SET keypool.test_now = '2026-01-01 12:00:00+00';
\pset format unaligned
\pset tuples_only on
INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value, priority) VALUES
  ('00000000-0000-8000-8000-000000000001', 'one', 'a', 'sk-a', 10),
  ('00000000-0000-8000-8000-000000000002', 'one', 'b', 'sk-b', 20),
  ('00000000-0000-8000-8000-000000000003', 'two', 'c', 'sk-c', 30);
CREATE VIEW first_keys AS
  SELECT one.key_label || one.priority || ' ' || two.key_label || two.priority FROM keypool_peek('one') one, keypool_peek('two') two;
TABLE first_keys;

-- command after command
BEGIN;
UPDATE keypool.provider_keys SET priority = 30 WHERE key_label = 'a';
TABLE first_keys;
UPDATE keypool.provider_keys SET priority = 9 WHERE key_label = 'a';
TABLE first_keys;
UPDATE keypool.provider_keys SET priority = 8 WHERE key_label = 'a' OR key_label = 'c';
UPDATE keypool.provider_keys SET priority = 7 WHERE key_label = 'b';
TABLE first_keys;
SELECT keypool_delete_key('00000000-0000-8000-8000-000000000002');
TABLE first_keys;
INSERT INTO keypool.provider_keys (provider_id, key_label, key_value) VALUES ('one', 'd', 'sk-d');
TABLE first_keys;
SELECT keypool_toggle_key(id, false) FROM keypool_list_keys('one') WHERE key_label = 'd';
TABLE first_keys;
ROLLBACK;
TABLE first_keys;

-- parts that are undone, inside, before and after parts that are not
BEGIN;
UPDATE keypool.provider_keys SET priority = 11 WHERE key_label = 'a';
TABLE first_keys;
SAVEPOINT part;
UPDATE keypool.provider_keys SET priority = 12 WHERE key_label = 'a';
TABLE first_keys;
SAVEPOINT inner_part;
UPDATE keypool.provider_keys SET priority = 13 WHERE key_label = 'a' OR key_label = 'c';
TABLE first_keys;
RELEASE inner_part;
TABLE first_keys;
ROLLBACK TO part;
TABLE first_keys;
UPDATE keypool.provider_keys SET priority = 14 WHERE key_label = 'a' OR key_label = 'c';
TABLE first_keys;
SAVEPOINT other_part;
TABLE first_keys;
UPDATE keypool.provider_keys SET priority = 15 WHERE key_label = 'a' OR key_label = 'c';
ROLLBACK TO other_part;
TABLE first_keys;
UPDATE keypool.provider_keys SET priority = 16 WHERE key_label = 'c';
TABLE first_keys;
ROLLBACK TO part;
TABLE first_keys;
COMMIT;
TABLE first_keys;

-- inside one statement: a function that changes and looks, row by row
CREATE FUNCTION pg_temp.change(key uuid, new integer, fails boolean) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  UPDATE keypool.provider_keys SET priority = new WHERE id = key;
  IF fails THEN
    RAISE 'look: %', (TABLE first_keys);
  END IF;
  RETURN (TABLE first_keys);
EXCEPTION WHEN OTHERS THEN
  RETURN sqlerrm || ', then ' || (TABLE first_keys);
END $$;
SELECT pg_temp.change('00000000-0000-8000-8000-000000000001', i, i % 2 = 0) FROM generate_series(1, 5) i;
TABLE first_keys;

-- a key that is deleted and added again by one statement, and meters that come twice in one
WITH gone AS (DELETE FROM keypool.provider_keys WHERE key_label = 'a' RETURNING *)
INSERT INTO keypool.provider_keys SELECT * FROM gone;
SELECT keypool_record('00000000-0000-8000-8000-000000000001', 5);
TABLE first_keys;
INSERT INTO keypool.key_meters VALUES
  ('00000000-0000-8000-8000-000000000001', '2 total_requests=1 total_tokens=1'),
  ('00000000-0000-8000-8000-000000000001', '2 total_requests=2 total_tokens=2');
SELECT keypool_record('00000000-0000-8000-8000-000000000001', 5);
SELECT key_label, total_requests, total_tokens FROM keypool_list_keys('one');
INSERT INTO keypool.key_state VALUES
  ('00000000-0000-8000-8000-000000000001', '1 total_requests=1 total_tokens=1'),
  ('00000000-0000-8000-8000-000000000001', '1 total_requests=2 total_tokens=2');
SELECT keypool_record('00000000-0000-8000-8000-000000000001', 5);
SELECT key_label, total_requests, total_tokens FROM keypool_list_keys('one');

-- meters: removed, made again and undone
BEGIN;
DELETE FROM keypool.key_meters WHERE key_id = '00000000-0000-8000-8000-000000000001';
SAVEPOINT removed;
SELECT healed, failed FROM keypool_heal();
SELECT keypool_record('00000000-0000-8000-8000-000000000001', 100);
SELECT key_label, total_requests, total_tokens FROM keypool_list_keys('one');
ROLLBACK TO removed;
SELECT keypool_record('00000000-0000-8000-8000-000000000001', 100);
ROLLBACK;
SELECT keypool_record('00000000-0000-8000-8000-000000000001', 1);
SELECT key_label, total_requests, total_tokens FROM keypool_list_keys('one');

\pset format aligned
\pset tuples_only off
DROP VIEW first_keys;
DELETE FROM keypool.provider_keys;
RESET keypool.test_now;
