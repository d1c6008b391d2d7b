-- keypool.events: who changed what, and what went wrong; never a secret.
SET keypool.test_now = '2026-01-01 12:00:00+00';
DELETE FROM keypool.event_log;
CREATE ROLE regress_keypool_changer;
CREATE ROLE regress_keypool_watcher;
CREATE FUNCTION pg_temp.told(after bigint) RETURNS TABLE (event text, provider_id text, subject_name text, role text, details jsonb)
  LANGUAGE sql AS 'SELECT event, provider_id, subject_name, CASE role WHEN session_role THEN ''session'' ELSE role END, details
    FROM keypool_events(after => $1) ORDER BY id';
SELECT max(id) AS start FROM (SELECT nextval('keypool.event_ids') AS id) s \gset
SELECT keypool_grant('regress_keypool_changer', 'operator', 'eve');
SELECT keypool_grant('regress_keypool_watcher', 'monitor', 'eve');
SET ROLE regress_keypool_changer;
SELECT keypool_add_key('eve', 'a', 'sk-secret-a', 1, 100, 2000, '{"account": "org"}') AS a \gset
RESET ROLE;
SELECT keypool_update_key(:'a', '{"max_rpm": 200, "max_tpm": null, "attributes": {"base_url": "https://x.example"}, "burst_seconds": 5}');
SELECT keypool_update_key(:'a', '{"max_rpm": 200}');
SELECT keypool_set_secret(:'a', 'sk-secret-b');
SELECT keypool_toggle_key(:'a', false, 60);
SELECT keypool_toggle_key(:'a', true);
SELECT * FROM keypool_heal();
SELECT keypool_set_quota('eve', 'q', '{"max_rpd": 5}') IS NOT NULL;
SELECT keypool_set_quota('eve', 'q', '{"max_rpd": 7, "account": "org"}') IS NOT NULL;
SELECT keypool_set_quota('eve', 'q', '{"max_rpd": 7}') IS NOT NULL;
SELECT keypool_set_provider('eve', '{"max_cooldown": 60, "strategy": "fill_first"}');
SELECT keypool_set_provider('eve', '{"max_cooldown": 90}');
SELECT keypool_set_error_rule('eve*', 429, 'quota_"used"_up', 'exhausted', 'key');
SELECT keypool_set_error_rule('eve*', 429, 'quota_"used"_up', NULL);
SELECT * FROM pg_temp.told(:start);

-- What is rolled back has not happened.
SELECT max(id) AS start FROM keypool.event_log \gset
BEGIN;
SELECT keypool_delete_quota('eve', 'q');
SELECT * FROM pg_temp.told(:start);
ROLLBACK;
SELECT * FROM pg_temp.told(:start);

-- What happens to calls has, and is written with the next COMMIT.
SET keypool.test_now = '2026-01-01 12:00:05+00';
BEGIN;
SELECT (keypool_report(key_id, lease, 401)).class FROM keypool_select('eve');
SELECT keypool_select('eve') \g /dev/null
ROLLBACK;
SELECT * FROM pg_temp.told(:start);
SELECT * FROM pg_temp.told(:start);
SELECT subject = :'a' AS is_key, role = session_role AS same FROM keypool_events('eve', :start);
-- A provider is told to be short when it becomes so, not with each refusal.
SET keypool.test_now = '2026-01-01 12:00:30+00';
SELECT status FROM keypool_try_select('eve');
SET keypool.test_now = '2026-01-01 12:01:29+00';
SELECT status FROM keypool_try_select('eve');
SELECT count(*) FROM keypool_events('eve', :start) WHERE event = 'provider_short';
SET keypool.test_now = '2026-01-01 12:02:29+00';
SELECT status FROM keypool_try_select('eve');
SELECT count(*) FROM keypool_events('eve', :start) WHERE event = 'provider_short';

-- Each sees the events of the providers that it may look at.
SET ROLE regress_keypool_watcher;
SELECT count(*) FILTER (WHERE provider_id = 'eve') > 0 AS own, count(*) FILTER (WHERE provider_id IS DISTINCT FROM 'eve') AS others FROM keypool.events;
SELECT count(*) FROM keypool_events('other');
RESET ROLE;
SELECT count(*) FROM keypool_events('nobody');
SELECT count(*) FROM keypool_events('');
SELECT count(*) FROM keypool_events('eve', 9223372036854775807);

-- The log is bounded, and calls do not push out changes.
SET keypool.keep_events = 20;
SELECT keypool_update_key(:'a', jsonb_build_object('priority', i)) FROM generate_series(2, 101) i \g /dev/null
SELECT count(*) BETWEEN 20 AND 40 AS bounded, max(id) - min(id) <= 40 AS newest FROM keypool.event_log WHERE NOT of_calls;
SELECT count(*) FROM keypool.event_log WHERE of_calls;
SET keypool.keep_events = 0;
SELECT max(id) AS start FROM keypool.event_log \gset
SELECT keypool_toggle_key(:'a', false);
SELECT * FROM pg_temp.told(:start);
RESET keypool.keep_events;

-- A listener hears of the newest only, and of nothing where there is nothing.
SELECT count(*) FROM keypool.event_log WHERE to_jsonb(event_log)::text ~ 'secret-[ab]';
BEGIN;
SELECT keypool_toggle_key(:'a', true);
SELECT keypool_toggle_key(:'a', false);
PREPARE TRANSACTION 'keypool_events';
COMMIT PREPARED 'keypool_events';
SELECT * FROM pg_temp.told(:start);
SELECT keypool_delete_key(:'a');
TRUNCATE keypool.quotas;
SELECT * FROM pg_temp.told(:start) OFFSET 2;
SELECT keypool_revoke('regress_keypool_changer', 'operator', 'eve');
SELECT keypool_revoke('regress_keypool_watcher', 'monitor', 'eve');
SELECT event, provider_id, subject_name, details FROM keypool_events(after => :start) LIMIT 2;

DROP ROLE regress_keypool_changer, regress_keypool_watcher;
DELETE FROM keypool.providers;
DELETE FROM keypool.refusals;
DELETE FROM keypool.event_log;
RESET keypool.test_now;
