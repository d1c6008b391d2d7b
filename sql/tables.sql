-- The tables in other hands: what an owner can do to them by plain SQL gets a clear answer, and nothing breaks.
SET keypool.test_now = '2026-01-01 12:00:00+00';
INSERT INTO keypool.provider_keys (id, provider_id, key_value) VALUES
  ('00000000-0000-8000-8000-000000000001', 'plain', 'sk-plain');
\set key '00000000-0000-8000-8000-000000000001'
SELECT status FROM keypool_try_select('plain');
\set VERBOSITY sqlstate

-- columns that keypool did not make
BEGIN;
ALTER TABLE keypool.provider_keys ADD COLUMN team text;
SAVEPOINT altered;
SELECT status FROM keypool_try_select('plain');
ROLLBACK TO altered;
SELECT id FROM keypool_list_keys('plain');
ROLLBACK TO altered;
INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('plain', 'sk-other');
ROLLBACK TO altered;
ALTER TABLE keypool.provider_keys DROP COLUMN team;
INSERT INTO keypool.provider_keys (provider_id, key_value, priority) VALUES ('plain', 'sk-other', -1);
UPDATE keypool.provider_keys SET key_label = 'undone' WHERE provider_id = 'plain';
SELECT key_label, key_value, status FROM keypool_try_select('plain');
SELECT key_label, priority FROM keypool_list_keys('plain');
ROLLBACK;
BEGIN;
ALTER TABLE keypool.provider_keys ALTER COLUMN key_label TYPE integer USING 1;
SELECT status FROM keypool_try_select('plain');
ROLLBACK;
BEGIN;
CREATE ROLE regress_keypool_other;
SELECT keypool_grant('regress_keypool_other', 'monitor', 'plain');
ALTER TABLE keypool.grants ADD COLUMN since timestamptz;
SET LOCAL ROLE regress_keypool_other;
SAVEPOINT altered;
SELECT status FROM keypool_peek('plain');
ROLLBACK TO altered;
RESET ROLE;
ALTER TABLE keypool.grants DROP COLUMN since;
SET LOCAL ROLE regress_keypool_other;
SELECT status FROM keypool_peek('plain');
ROLLBACK;
BEGIN;
ALTER TABLE keypool.key_meters ADD COLUMN note integer DEFAULT 0;
SAVEPOINT altered;
SELECT keypool_add_key('wider', 'a', 'sk-a');
ROLLBACK TO altered;
INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('wider', 'sk-a');
ROLLBACK TO altered;
DELETE FROM keypool.key_meters WHERE key_id = :'key';
INSERT INTO keypool.key_meters VALUES (:'key', '2');
SAVEPOINT longer;
SELECT status FROM keypool_try_select('plain');
ROLLBACK TO longer;
SELECT keypool_record(:'key');
ROLLBACK;
SELECT status FROM keypool_try_select('plain');
BEGIN;
ALTER TABLE keypool.refusals ALTER COLUMN counts TYPE integer USING 7;
SAVEPOINT altered;
SELECT status FROM keypool_try_select('plain', 0, 'm', except_keys => ARRAY[:'key']::uuid[]);
ROLLBACK TO altered;
SELECT keypool_status('plain');
ROLLBACK TO altered;
SELECT status FROM keypool_try_select('plain');
ROLLBACK;
BEGIN;
ALTER TABLE keypool.event_log ADD COLUMN note text;
ALTER TABLE keypool.event_log DROP COLUMN note;
SELECT keypool_toggle_key(:'key', false);
ROLLBACK;

-- what must not be NULL is not, whatever became of the constraints
BEGIN;
ALTER TABLE keypool.provider_keys ALTER provider_id DROP NOT NULL, ALTER key_value DROP NOT NULL, ALTER priority DROP NOT NULL,
  ALTER is_active DROP NOT NULL, ALTER weight DROP NOT NULL;
ALTER TABLE keypool.quotas ALTER provider_id DROP NOT NULL, ALTER name DROP NOT NULL, ALTER counts DROP NOT NULL,
  ALTER output_weight DROP NOT NULL, ALTER day DROP NOT NULL;
ALTER TABLE keypool.grants ALTER role DROP NOT NULL, ALTER rights DROP NOT NULL;
INSERT INTO keypool.quotas (provider_id, name) VALUES ('plain', 'q');
\set VERBOSITY terse
DO $$
DECLARE statement text;
BEGIN
  FOREACH statement IN ARRAY ARRAY[
    'UPDATE keypool.provider_keys SET key_value = NULL', 'UPDATE keypool.provider_keys SET priority = NULL',
    'UPDATE keypool.provider_keys SET is_active = NULL', 'UPDATE keypool.provider_keys SET weight = NULL',
    'INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES (NULL, ''sk-n'')',
    'INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES (''plain'', NULL)',
    'UPDATE keypool.quotas SET name = NULL', 'UPDATE keypool.quotas SET counts = NULL', 'UPDATE keypool.quotas SET output_weight = NULL',
    'UPDATE keypool.quotas SET day = NULL', 'INSERT INTO keypool.quotas (provider_id, name) VALUES (NULL, ''r'')',
    'INSERT INTO keypool.grants (role, rights) VALUES (NULL, ''app'')',
    'INSERT INTO keypool.grants (role, rights) VALUES (current_role::regrole, NULL)'] LOOP
    BEGIN
      EXECUTE statement;
      RAISE NOTICE 'done: %', statement;
    EXCEPTION WHEN not_null_violation THEN
      RAISE NOTICE '%', sqlerrm;
    END;
  END LOOP;
END $$;
\set VERBOSITY sqlstate
SELECT key_label, status FROM keypool_try_select('plain');
-- and those that are there all the same end no session
ALTER TABLE keypool.key_meters ALTER meter DROP NOT NULL;
INSERT INTO keypool.key_meters (key_id) VALUES (gen_random_uuid());
INSERT INTO keypool.grants (role, rights, provider_id) VALUES (current_role::regrole, 'app', 'plain');
ALTER TABLE keypool.grants ALTER rights TYPE text COLLATE "C" USING NULL;
ALTER TABLE keypool.provider_keys ALTER key_value TYPE text USING NULL;
ALTER TABLE keypool.quotas ALTER counts TYPE text COLLATE "C" USING NULL, ALTER day TYPE text COLLATE "C" USING NULL;
SELECT key_label, status FROM keypool_try_select('plain');
SELECT count(*) > 0 FROM keypool_keyring();
SELECT healed, failed FROM keypool_heal();
SELECT count(*) > 0 FROM keypool_doctor();
SELECT name, counts FROM keypool_list_quotas('plain');
SELECT count(*) FROM keypool_list_keys('plain');
CREATE ROLE regress_keypool_other;
GRANT EXECUTE ON FUNCTION keypool_list_keys TO regress_keypool_other;
SET LOCAL ROLE regress_keypool_other;
SELECT count(*) FROM keypool_list_keys();
ROLLBACK;

-- a meter that is removed, and one that no clock has
DELETE FROM keypool.key_meters WHERE key_id = :'key';
SELECT status FROM keypool_try_select('plain');
SELECT keypool_record(:'key', 1);
SELECT healed, failed FROM keypool_heal();
SELECT status FROM keypool_try_select('plain');
SELECT '2 last_used_at=9223372036854775807'::keypool.meter;
SELECT '2 last_selected_at=9223372036854775807'::keypool.meter;
SELECT '2 slot=4294967295/1/1/0/0'::keypool.meter;
SELECT '2 reserved=4294967295/1/1/0/0'::keypool.meter;
SELECT '2 blocked_until=9223372036854775807'::keypool.meter;
SELECT '2 last_used_at=4102444800000000'::keypool.meter;
SELECT '1 newest_second=4294967295'::keypool.meter;
SELECT '1 last_grant=9223372036854775807'::keypool.meter;
SELECT '1 second=4294967295/1/1'::keypool.meter;
SELECT '1 cooldown_until=9223372036854775807'::keypool.meter;
SELECT '1 newest_second=4102444800'::keypool.meter;

INSERT INTO keypool.key_meters VALUES (NULL, '2');
INSERT INTO keypool.key_meters VALUES (:'key', NULL);
INSERT INTO keypool.key_state VALUES (NULL, '1');
INSERT INTO keypool.key_state VALUES (:'key', NULL);
INSERT INTO keypool.quota_meters VALUES (NULL, '2');
UPDATE keypool.key_state SET key_id = key_id;

-- times without an end
UPDATE keypool.provider_keys SET is_active = false, inactive_until = 'infinity' WHERE id = :'key';
SELECT status, retry_after_ms FROM keypool_try_select('plain');
SELECT status, retry_after_ms FROM keypool_peek('plain');
SELECT cooldown_until FROM keypool_list_keys('plain');
UPDATE keypool.provider_keys SET inactive_until = '294276-12-31 23:59:59+00' WHERE id = :'key';
SELECT status, retry_after_ms FROM keypool_try_select('plain');
UPDATE keypool.provider_keys SET inactive_until = '-infinity' WHERE id = :'key';
SELECT status, retry_after_ms FROM keypool_try_select('plain');
SELECT is_active, cooldown_until FROM keypool_list_keys('plain');

-- a statement that selects among rows that it changes itself, and fails: nothing of it stays in its session's mind
CREATE FUNCTION pg_temp.meddle(key uuid) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
  CREATE TEMP TABLE IF NOT EXISTS touched (id uuid);
  INSERT INTO touched VALUES (key);
  IF (SELECT count(*) FROM touched) = 2 THEN
    RAISE NOTICE 'priority %', (SELECT priority FROM keypool_peek('meddled'));
    RAISE EXCEPTION 'changed my mind';
  END IF;
  RETURN 7;
END $$;
INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('meddled', 'sk-a'), ('meddled', 'sk-b');
UPDATE keypool.provider_keys SET priority = pg_temp.meddle(id) WHERE provider_id = 'meddled';
SELECT priority FROM keypool_peek('meddled');
INSERT INTO keypool.quotas (provider_id, name, max_tpm) VALUES ('meddled', 'a', 10), ('meddled', 'b', 20);
DELETE FROM keypool.quota_meters WHERE pg_temp.meddle(quota_id) > 0;
SELECT status FROM keypool_peek('meddled', 15);
DELETE FROM keypool.quotas;
DELETE FROM keypool.key_meters WHERE CASE WHEN key_id <> :'key' THEN pg_temp.meddle(key_id) > 0 END;
SELECT count(*) FROM keypool_explain_select('meddled');
CREATE FUNCTION pg_temp.meddle_with_rules(round integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  IF round = 2 THEN
    RAISE NOTICE 'class %', (SELECT class FROM keypool_explain_answer('meddled', 418));
    RAISE EXCEPTION 'changed my mind';
  END IF;
  RETURN 'billing';
END $$;
INSERT INTO keypool.error_rules (provider, http_status, class) SELECT 'meddled', 417 + i, pg_temp.meddle_with_rules(i) FROM generate_series(1, 2) i;
SELECT class FROM keypool_explain_answer('meddled', 418);
CREATE ROLE regress_keypool_meddler;
CREATE FUNCTION pg_temp.meddle_with_grants(round integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  IF round = 2 THEN
    SET LOCAL ROLE regress_keypool_meddler;
    RAISE NOTICE 'keys %', (SELECT count(*) FROM keypool_list_keys());
    RAISE EXCEPTION 'changed my mind';
  END IF;
  RETURN 'monitor';
END $$;
GRANT EXECUTE ON FUNCTION keypool_list_keys TO regress_keypool_meddler;
INSERT INTO keypool.grants (role, rights) SELECT 'regress_keypool_meddler'::regrole, pg_temp.meddle_with_grants(i) FROM generate_series(1, 2) i;
SET ROLE regress_keypool_meddler;
SELECT count(*) FROM keypool_list_keys();
RESET ROLE;
REVOKE EXECUTE ON FUNCTION keypool_list_keys FROM regress_keypool_meddler;
DROP ROLE regress_keypool_meddler;
\set VERBOSITY default
DELETE FROM keypool.provider_keys;
RESET keypool.test_now;
