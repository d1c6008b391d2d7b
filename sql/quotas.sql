-- Quotas, providers' defaults and settings of keys: ordinary data, checked on the way in, by functions and by plain SQL.
SET keypool.test_now = '2026-01-01 12:00:00+00';
SET client_min_messages = warning;
-- The SQLSTATE and the message of a statement that is refused; %L stands for the arguments.
CREATE FUNCTION pg_temp.refused(statement text, VARIADIC arguments text[] DEFAULT '{}') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  code text; message text; detail text;
BEGIN
  EXECUTE format(statement, VARIADIC arguments);
  RETURN 'done';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
  RETURN concat_ws(': ', code, message, CASE WHEN code !~ '^23' THEN regexp_replace(nullif(detail, ''), '[0-9a-f-]{36}', '(id)', 'g') END);
END $$;
CREATE FUNCTION pg_temp.bad_quota(settings jsonb) RETURNS text LANGUAGE sql AS
  $$ SELECT pg_temp.refused('SELECT keypool_set_quota(''quo'', ''bad'', %L)', settings::text) $$;
CREATE FUNCTION pg_temp.bad_key(key uuid, changes jsonb) RETURNS text LANGUAGE sql AS
  $$ SELECT pg_temp.refused('SELECT keypool_update_key(%L, %L)', key::text, changes::text) $$;

-- A quota is made, changed by what is named, and reset by null. Its id stays, and begins as those of the keys do.
SELECT keypool_set_quota('quo', 'org', '{"account": "org-1", "max_rpm": 50, "models": ["gpt-4o*", "o?"]}') AS org \gset
SELECT keypool_set_quota('quo', 'org', '{"max_rpm": 60, "burst_seconds": 5}') = :'org' AS same;
SELECT keypool_set_quota('quo', 'org') = :'org' AS same;
SELECT name, account, models, max_rpm, burst_seconds, counts, output_weight, day FROM keypool.quotas WHERE provider_id = 'quo';
SELECT keypool_set_quota('quo', 'org', '{"models": null, "burst_seconds": null, "counts": "input", "output_weight": 5.0}') = :'org' AS same;
SELECT name, account, models, max_rpm, burst_seconds, counts, output_weight FROM keypool.quotas WHERE provider_id = 'quo';
SELECT keypool_set_quota('quo', 'org', '{"counts": null, "output_weight": null}') = :'org' AS same;
SELECT counts, output_weight FROM keypool.quotas WHERE provider_id = 'quo';
SELECT substr(replace(:'org', '-', ''), 1, 8) = encode(substr(sha256('quo'), 1, 4), 'hex') AS prefix;
SELECT count(*) AS meters FROM keypool.quota_meters WHERE quota_id = :'org';

-- Plain SQL does the same.
INSERT INTO keypool.quotas (provider_id, name, max_tpd, day, time_zone) VALUES ('quo', 'daily', 1000, 'calendar', 'America/Los_Angeles') RETURNING id AS daily \gset
UPDATE keypool.quotas SET max_tpd = 2000 WHERE id = :'daily';
SELECT updated_at >= created_at AS touched FROM keypool.quotas WHERE id = :'daily';
SELECT pg_temp.refused('UPDATE keypool.quotas SET provider_id = ''other'' WHERE id = %L', :'daily');
SELECT pg_temp.refused('UPDATE keypool.quotas SET id = %L WHERE id = %L', :'org', :'daily');
DELETE FROM keypool.quotas WHERE id = :'daily';
SELECT count(*) AS meters FROM keypool.quota_meters WHERE quota_id = :'daily';
SELECT pg_temp.refused('UPDATE keypool.quota_meters SET quota_id = %L WHERE quota_id = %L', :'daily', :'org');

-- Bad names, accounts, models, zones and limits
SELECT pg_temp.refused($$SELECT keypool_set_quota('quo', '', '{}')$$);
SELECT pg_temp.refused($$SELECT keypool_set_quota('quo', NULL, '{}')$$);
SELECT pg_temp.refused($$SELECT keypool_set_quota('quo', 'key', '{}')$$);
SELECT pg_temp.refused($$SELECT keypool_set_quota('quo', repeat('n', 256), '{}')$$);
SELECT pg_temp.refused($$SELECT keypool_set_quota('quo', E'a\u200bb', '{}')$$);
SELECT pg_temp.refused($$SELECT keypool_set_quota('', 'org', '{}')$$);
SELECT pg_temp.bad_quota('{"account": ""}');
SELECT pg_temp.bad_quota('{"account": "org//proj"}');
SELECT pg_temp.bad_quota('{"account": "org/"}');
SELECT pg_temp.bad_quota('{"models": []}');
SELECT pg_temp.bad_quota('{"models": [""]}');
SELECT pg_temp.bad_quota(jsonb_build_object('models', jsonb_build_array(repeat('m', 256))));
SELECT pg_temp.bad_quota(jsonb_build_object('models', (SELECT jsonb_agg('m' || i) FROM generate_series(1, 101) i)));
SELECT pg_temp.bad_quota('{"models": "gpt*"}');
SELECT pg_temp.bad_quota('{"models": ["gpt*", null]}');
SELECT pg_temp.refused($$INSERT INTO keypool.quotas (provider_id, name, models) VALUES ('quo', 'bad', '{gpt*,NULL}')$$);
SELECT pg_temp.refused($$INSERT INTO keypool.quotas (provider_id, name, models) VALUES ('quo', 'bad', '{{a,b},{c,d}}')$$);
SELECT pg_temp.bad_quota('{"time_zone": "Mars/Olympus"}');
SELECT pg_temp.bad_quota('{"max_rpm": 10, "max_rph": 100}');
SELECT pg_temp.bad_quota('{"max_rpm": 10, "max_rpd": 100, "day": "rolling"}');
SELECT pg_temp.bad_quota('{"max_rpm": -1}');
SELECT pg_temp.bad_quota('{"max_rpm": 1.5}');
SELECT pg_temp.bad_quota('{"max_rpm": 1e30}');
SELECT pg_temp.bad_quota('{"max_rpm": "50"}');
SELECT pg_temp.bad_quota('{"burst_seconds": 31}');
SELECT pg_temp.bad_quota('{"output_weight": 0}');
SELECT pg_temp.bad_quota('{"counts": "words"}');
SELECT pg_temp.bad_quota('{"max_rmp": 50}');
SELECT pg_temp.bad_quota('{"sk-astray-1": 50}');
SELECT pg_temp.bad_quota('[1]');
SELECT pg_temp.refused($$INSERT INTO keypool.quotas (provider_id, name, max_rpm) VALUES ('quo', 'bad', -1)$$);
SELECT pg_temp.refused($$INSERT INTO keypool.quotas (provider_id, name, day) VALUES ('quo', 'bad', 'weekly')$$);
SELECT pg_temp.refused($$INSERT INTO keypool.quotas (provider_id, name) VALUES ('quo', 'org')$$);
SELECT pg_temp.refused($$SELECT keypool_delete_quota('quo', 'nobody')$$);
SELECT keypool_delete_quota('quo', 'org');
SELECT count(*) AS left FROM keypool.quotas WHERE provider_id = 'quo';

-- At most three quotas may apply to one request beside the key.
SELECT count(keypool_set_quota('four', name, settings)) AS made FROM (VALUES
  ('provider', '{"max_rpm": 1000}'::jsonb), ('org', '{"account": "org-1"}'), ('family', '{"account": "org-1/a", "models": ["gpt-4o*"]}'),
  ('other org', '{"account": "org-2"}'), ('other project', '{"account": "org-1/ab"}'), ('other family', '{"account": "org-1/a", "models": ["o3*"]}')) q(name, settings);
SELECT pg_temp.refused($$SELECT keypool_set_quota('four', 'mini', '{"account": "org-1/a", "models": ["gpt-4o-mini*"]}')$$);
SELECT pg_temp.refused($$SELECT keypool_set_quota('four', 'mini', '{"account": "org-1/a/b", "models": ["?3*"]}')$$);
SELECT pg_temp.refused($$SELECT keypool_set_quota('four', 'mini', '{"models": ["*-preview"]}')$$);
SELECT keypool_set_quota('four', 'family', '{"except_models": ["gpt-4o-mini*"]}') IS NOT NULL AS made;
SELECT keypool_set_quota('four', 'mini', '{"account": "org-1/a", "models": ["gpt-4o-mini*"]}') IS NOT NULL AS made;
SELECT pg_temp.refused($$SELECT keypool_set_quota('four', 'family', '{"except_models": null}')$$);
SELECT pg_temp.refused($$UPDATE keypool.quotas SET account = NULL WHERE provider_id = 'four' AND name = 'other family'$$);
SELECT pg_temp.refused($$UPDATE keypool.quotas SET models = NULL WHERE provider_id = 'four' AND name = 'other family'$$);
SET session_replication_role = replica;
UPDATE keypool.quotas SET models = NULL WHERE provider_id = 'four' AND name = 'other family';
RESET session_replication_role;
SELECT translate(result, E'\n', ' ') FROM keypool_doctor() WHERE "check" = 'quotas';
DELETE FROM keypool.quotas WHERE provider_id = 'four';

-- Defaults of a provider
SELECT keypool_set_provider('quo', '{"strategy": "fill_first", "call_timeout": 90, "time_zone": "Asia/Kathmandu"}');
SELECT keypool_set_provider('quo', '{"strategy": null, "default_tokens": 100, "rate_limit_scope": "account"}');
SELECT * FROM keypool.providers WHERE provider_id = 'quo';
SELECT pg_temp.refused($$SELECT keypool_set_provider('quo', '{"strategy": "random"}')$$);
SELECT pg_temp.refused($$SELECT keypool_set_provider('quo', '{"call_timeout": 59}')$$);
SELECT pg_temp.refused($$SELECT keypool_set_provider('quo', '{"time_zone": "PST"}')$$);
SELECT pg_temp.refused($$SELECT keypool_set_provider('quo', NULL)$$);
SELECT pg_temp.refused($$UPDATE keypool.providers SET provider_id = 'other' WHERE provider_id = 'quo'$$);
DELETE FROM keypool.providers WHERE provider_id = 'quo';

-- A window of another width that is tried and given up forgets nothing.
SELECT keypool_add_key('quo', 'wide', 'sk-quo-wide') AS wide \gset
SELECT keypool_set_quota('quo', 'wide', '{"max_rpm": 3, "max_output_tpm": 60}') IS NOT NULL AS made;
SELECT keypool_record(:'wide', 100, output_tokens => 30) FROM generate_series(1, 2);
BEGIN;
SELECT keypool_set_quota('quo', 'wide', '{"max_rpm": null, "max_output_tpm": null, "max_rph": 3}') IS NOT NULL AS changed;
SELECT lease AS third FROM keypool_select('quo') \gset
SELECT keypool_record(:'wide', 1, :'third');
SELECT status, blocked_limit FROM keypool_try_select('quo');
SELECT keypool_set_quota('quo', 'wide', '{"max_rph": null, "max_tpd": 202, "day": "rolling"}') IS NOT NULL AS changed;
SELECT status, blocked_limit FROM keypool_try_select('quo', 2);
SELECT status, blocked_limit FROM keypool_peek('quo', 1);
ROLLBACK;
SELECT status, blocked_limit FROM keypool_try_select('quo', 1);
SELECT keypool_set_quota('quo', 'wide', '{"max_rpm": null}') IS NOT NULL AS changed;
SELECT status, blocked_limit FROM keypool_try_select('quo', 1, output_tokens => 1);
SELECT keypool_delete_quota('quo', 'wide');
SELECT keypool_delete_key(:'wide');

-- Settings of keys
SELECT keypool_add_key('quo', 'one', 'sk-quo-one', settings => '{"account": "org-1/a", "weight": 3, "max_in_flight": 8, "attributes": {"base_url": "https://example.org"}, "expires_at": "2026-02-01T00:00:00Z"}') AS one \gset
SELECT keypool_key('quo', 'one') = :'one' AS found;
SELECT keypool_update_key(:'one', '{"weight": null, "max_rpm": 0, "models": ["gpt-*"], "priority": 2}');
SELECT account, weight, max_rpm, max_in_flight, models, priority, attributes, expires_at AT TIME ZONE 'UTC' AS expires_at FROM keypool.provider_keys WHERE id = :'one';
SELECT keypool_update_key(:'one', '{}');
SELECT pg_temp.refused($$SELECT keypool_add_key('quo', 'two', 'sk-quo-two', max_rpm => 5, settings => '{"max_rpm": 6}')$$);
SELECT pg_temp.bad_key(:'one', '{"key_value": "sk-quo-other"}');
SELECT pg_temp.bad_key(:'one', '{"weight": 0}');
SELECT pg_temp.bad_key(:'one', '{"max_rph": 5}');
SELECT pg_temp.bad_key(:'one', '{"expires_at": "soon"}');
SELECT pg_temp.bad_key(:'one', '{"is_active": 1}');
SELECT pg_temp.bad_key(:'one', '{"attributes": ["list"]}');
SELECT pg_temp.bad_key(:'one', '{"attributes": {"base_url": "https://user:hidden@example.org/v1"}}');
SELECT keypool_update_key(:'one', '{"attributes": {"api_key": "see key_value"}}');
SELECT pg_temp.bad_key(:'one', '{"account": "org-1/ a"}');
SELECT pg_temp.bad_key(:'one', NULL);
SELECT pg_temp.refused($$SELECT keypool_update_key('00000000-0000-8000-8000-00000000000f', '{}')$$);
SELECT pg_temp.refused($$SELECT keypool_key('quo', 'nobody')$$);

-- The same secret for another account, or with other attributes, is another key; else it is known.
SELECT keypool_update_key(:'one', '{"attributes": null}');
SELECT keypool_add_key('quo', 'again', 'sk-quo-one', settings => '{"account": "org-2"}') AS again \gset
SELECT pg_temp.refused($$SELECT keypool_add_key('quo', 'again', 'sk-quo-one', settings => '{"account": "org-1/a"}')$$);
SELECT pg_temp.bad_key(:'again', '{"account": "org-1/a"}');
SELECT keypool_update_key(:'again', '{"account": "org-1/a", "attributes": {"region": "eu"}}');

-- A new secret keeps the id and the counters.
SELECT keypool_set_secret(:'again', 'sk-quo-new');
SELECT pg_temp.refused('SELECT keypool_set_secret(%L, NULL)', :'again');
SELECT pg_temp.refused($$SELECT keypool_set_secret('00000000-0000-8000-8000-00000000000f', 'sk-quo-new')$$);
SELECT keypool_toggle_key(:'one', false);
SELECT key_value, attributes FROM keypool_select('quo');

DELETE FROM keypool.provider_keys WHERE provider_id = 'quo';
SELECT count(*) AS meters_left FROM keypool.quota_meters;

-- A meter that is restored replaces the fresh one; one of a dump of 0.1.0 comes as a row of keypool.key_state.
SELECT keypool_add_key('quo', 'old', 'sk-quo-old') AS old \gset
INSERT INTO keypool.key_state VALUES (:'old', '1 total_requests=3 total_tokens=7 cooldown_until=1767269100000000');
SELECT total_requests, total_tokens, cooldown_until AT TIME ZONE 'UTC' AS cooldown_until FROM keypool_list_keys('quo');
INSERT INTO keypool.key_meters VALUES (:'old', '2 total_requests=4 total_tokens=8');
SELECT total_requests, total_tokens, cooldown_until FROM keypool_list_keys('quo');
-- keypool_heal() gives a key and a quota a meter that have none.
SELECT keypool_set_quota('quo', 'org', '{"max_rph": 100}') IS NOT NULL AS made;
DELETE FROM keypool.key_meters WHERE key_id = :'old';
DELETE FROM keypool.quota_meters;
SELECT translate(result, E'\n', ' ') FROM keypool_doctor() WHERE "check" = 'meters';
SELECT failed FROM keypool_heal();
SELECT translate(result, E'\n', ' ') FROM keypool_doctor() WHERE "check" = 'meters';
SELECT status, blocked_by FROM keypool_try_select('quo');
BEGIN;
TRUNCATE keypool.quotas, keypool.providers, keypool.provider_keys;
SELECT (SELECT count(*) FROM keypool.key_meters) + (SELECT count(*) FROM keypool.quota_meters) AS meters;
SELECT status FROM keypool_try_select('quo');
ROLLBACK;
SELECT keypool_delete_quota('quo', 'org');
DELETE FROM keypool.provider_keys WHERE provider_id = 'quo';
