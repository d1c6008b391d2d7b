-- Keys are ordinary data: added, changed and removed in transactions, sealed on the way in.
SELECT 'enc:v1:' || master_key_id || ':' AS sealed_by FROM keypool_keyring() WHERE is_primary \gset
SELECT keypool_add_key('conf', 'one', 'sk-marker-one', 5, 10, 1000) AS one \gset
SELECT keypool_add_key(provider => 'conf', key_label => NULL, key_value => 'sk-marker-two') AS two \gset
INSERT INTO keypool.provider_keys (provider_id, key_value, priority) VALUES ('conf', 'sk-marker-three', 1) RETURNING id AS three \gset

-- The id is a UUIDv8 whose first bytes are those of SHA-256 of the provider.
SELECT DISTINCT substr(replace(id::text, '-', ''), 1, 8) = encode(substr(sha256('conf'), 1, 4), 'hex') AS prefix,
  substr(id::text, 15, 1) AS version, substr(id::text, 20, 1) IN ('8', '9', 'a', 'b') AS variant
FROM keypool_list_keys('conf');

-- Sealed: by the function, and by the trigger for plain statements. Never the same twice.
SELECT count(*) AS keys, bool_and(key_value ~ ('^' || :'sealed_by' || '[A-Za-z0-9+/]+=*$')) AS sealed, count(DISTINCT key_value) AS different
FROM keypool.provider_keys WHERE provider_id = 'conf';
SELECT key_label, key_value FROM keypool_select('conf');
UPDATE keypool.provider_keys SET key_value = 'sk-marker-changed' WHERE id = :'three';
UPDATE keypool.provider_keys SET priority = -1 WHERE id = :'three';
SELECT key_value FROM keypool_select('conf');
SELECT starts_with(key_value, :'sealed_by') AS sealed FROM keypool.provider_keys WHERE id = :'three';
COPY keypool.provider_keys (provider_id, key_label, key_value, priority) FROM stdin;
conf	copied	sk-marker-copied	-2
\.
SELECT key_label, key_value FROM keypool_select('conf');

-- No setting of a session skips the triggers.
SET session_replication_role = replica;
INSERT INTO keypool.provider_keys (provider_id, key_label, key_value, priority) VALUES ('conf', 'replica', 'sk-marker-replica', -3);
RESET session_replication_role;
SELECT key_label, key_value FROM keypool_select('conf');
SELECT bool_and(starts_with(key_value, :'sealed_by')) AS sealed FROM keypool.provider_keys WHERE provider_id = 'conf';

-- The writer sees its own uncommitted change, and not after it was undone.
BEGIN;
SELECT keypool_add_key('conf', 'mine', 'sk-marker-mine', -10) IS NOT NULL AS added;
SELECT key_label, key_value FROM keypool_select('conf');
SAVEPOINT before;
SELECT keypool_add_key('conf', 'more', 'sk-marker-more', -20) IS NOT NULL AS added;
SELECT key_label FROM keypool_select('conf');
ROLLBACK TO before;
SELECT key_label FROM keypool_select('conf');
ROLLBACK;
SELECT key_label FROM keypool_select('conf');
BEGIN;
TRUNCATE keypool.provider_keys;
SELECT status FROM keypool_try_select('conf');
SELECT count(*) FROM keypool.key_meters;
ROLLBACK;
SELECT status, key_label FROM keypool_try_select('conf');

-- A secret is moved to another row: refused; and if it is done behind the trigger's back, it does not open there, and the
-- others are served.
SELECT keypool_add_key('moved', 'thief', 'sk-marker-thief', 0) AS thief \gset
SELECT keypool_add_key('moved', 'honest', 'sk-marker-honest', 1) AS honest \gset
\set VERBOSITY terse
UPDATE keypool.provider_keys SET key_value = (SELECT key_value FROM keypool.provider_keys WHERE id = :'honest') WHERE id = :'thief';
INSERT INTO keypool.provider_keys (id, provider_id, key_value) VALUES (:'thief', 'other', 'sk-marker-other')
  ON CONFLICT (id) DO UPDATE SET key_value = EXCLUDED.key_value;
\set VERBOSITY default
SELECT key_label, key_value FROM keypool_select('moved');
ALTER TABLE keypool.provider_keys DISABLE TRIGGER before_key_change;
UPDATE keypool.provider_keys SET key_value = (SELECT key_value FROM keypool.provider_keys WHERE id = :'honest') WHERE id = :'thief';
SET client_min_messages = error;
SELECT key_label, key_value FROM keypool_select('moved');
UPDATE keypool.provider_keys SET is_active = false WHERE id = :'honest';
SELECT * FROM keypool_select('moved');
\echo :SQLSTATE
SELECT window_requests, open_reservations FROM keypool_list_keys('moved') WHERE key_label = 'thief';
-- Altered, truncated, malformed, or under a master key that nobody has.
UPDATE keypool.provider_keys SET is_active = true, key_value = overlay(key_value PLACING 'AAAA' FROM 30) WHERE id = :'honest';
SELECT status FROM keypool_try_select('moved');
UPDATE keypool.provider_keys SET key_value = left(key_value, -4) WHERE id = :'honest';
SELECT status FROM keypool_try_select('moved');
UPDATE keypool.provider_keys SET key_value = 'enc:v1:primary' WHERE id = :'honest';
SELECT status FROM keypool_try_select('moved');
UPDATE keypool.provider_keys SET key_value = 'enc:v1:lost:' || repeat('A', 48) WHERE id = :'honest';
SELECT status FROM keypool_try_select('moved');
\echo :SQLSTATE
ALTER TABLE keypool.provider_keys ENABLE ALWAYS TRIGGER before_key_change;
-- keypool_heal notes what does not open, and leaves the rest, and those that only lack their master key. None is switched off.
SELECT * FROM keypool_heal();
SELECT * FROM keypool_heal();
RESET client_min_messages;
SELECT key_label, is_active, unopened_since IS NOT NULL AS noted FROM keypool.provider_keys WHERE provider_id = 'moved' ORDER BY key_label;

-- Lists never show a secret, and are what the service before showed as JSON.
SELECT jsonb_object_keys(to_jsonb(k)) AS field FROM keypool_list_keys('conf') k WHERE key_label = 'one' ORDER BY 1;
SELECT count(*) FROM keypool_list_keys() k WHERE to_jsonb(k)::text LIKE '%marker%';
SELECT count(*) = (SELECT count(*) FROM keypool.keys) AS same FROM keypool_list_keys();
SELECT keypool_delete_key(:'one');
SELECT count(*) FROM keypool_list_keys('conf') WHERE id = :'one';

DELETE FROM keypool.provider_keys WHERE provider_id IN ('conf', 'moved');
SELECT count(*) FROM keypool.key_meters;
