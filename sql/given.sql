-- What people type or paste: white space at the ends of a secret is cut, what cannot be a secret or a name is refused, and
-- a provider has no secret twice.
SET keypool.test_now = '2026-01-01 12:00:00+00';
\set one '00000000-0000-8000-8000-000000000001'
\set two '00000000-0000-8000-8000-000000000002'

-- White space is cut wherever a secret comes in.
INSERT INTO keypool.provider_keys (id, provider_id, key_value) VALUES (:'one', 'given', E'\t sk-inserted\r\n');
COPY keypool.provider_keys (id, provider_id, key_value) FROM stdin;
00000000-0000-8000-8000-000000000002	given	sk-copied \r\n
\.
SELECT keypool_add_key('given', 'added', U&'\00A0sk-added\2003\0085') IS NOT NULL AS added;
UPDATE keypool.provider_keys SET key_value = 'sk-updated ' WHERE id = :'one';
SELECT DISTINCT key_value FROM generate_series(1, 9) i, keypool_select('given', i * 0) ORDER BY 1;

-- The rest is refused, with its fault and without what was given.
\set VERBOSITY terse
SELECT keypool_add_key('given', 'a', E' \n ');
\echo :SQLSTATE
SELECT keypool_add_key('given', 'a', U&'sk-1\200B');
\echo :SQLSTATE
SELECT keypool_add_key('given', 'a', U&'\FEFFsk-1');
SELECT keypool_add_key('given', 'a', U&'sk\00A01');
SELECT keypool_add_key('given', 'a', E'sk\t1');
SELECT keypool_add_key('given', 'a', 'Bearer sk-1');
\echo :SQLSTATE
SELECT keypool_add_key('given', 'a', U&'\2022\2022\2022\2022');
SELECT keypool_add_key('given', 'a', '********');
SELECT keypool_add_key('given', 'a', E'sk-1\nsk-2');
\echo :SQLSTATE
SELECT keypool_add_key('given', 'a', E'sk-1\r\nsk-2');
SELECT keypool_add_key('given ', 'a', 'sk-1');
\echo :SQLSTATE
SELECT keypool_add_key(U&'\FEFFgiven', 'a', 'sk-1');
SELECT keypool_add_key(U&'gi\200Bven', 'a', 'sk-1');
SELECT keypool_add_key('given', 'a ', 'sk-1');
SELECT keypool_add_key('given', E'a\nb', 'sk-1');
SELECT keypool_add_key('given', repeat('x', 1025), 'sk-1');
\echo :SQLSTATE
\set VERBOSITY default
INSERT INTO keypool.provider_keys (id, provider_id, key_value) VALUES ('00000000-0000-8000-8000-000000000003', 'given', 'Bearer sk-1');
INSERT INTO keypool.provider_keys (id, provider_id, key_value) VALUES ('00000000-0000-8000-8000-000000000003', 'given ', 'sk-1');
INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value)
  VALUES ('00000000-0000-8000-8000-000000000003', 'given', ' a', 'sk-1');
UPDATE keypool.provider_keys SET key_value = '...' WHERE id = :'one';
UPDATE keypool.provider_keys SET key_label = repeat('x', 1025) WHERE id = :'one';
UPDATE keypool.provider_keys SET key_label = repeat('x', 1024) WHERE id = :'one';
UPDATE keypool.provider_keys SET key_label = NULL WHERE id = :'one';
UPDATE keypool.provider_keys SET key_label = '' WHERE id = :'one';

-- JSON and PEM have lines.
SELECT keypool_add_key('lines', 'json', E'{\n\t"type": "service_account"\r\n}\n') IS NOT NULL AS added;
SELECT keypool_add_key('lines', 'pem', E'-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n') IS NOT NULL AS added;
SELECT quote_literal(key_value) FROM generate_series(1, 2) i, keypool_select('lines', i * 0) ORDER BY 1;

-- A key does not lose its secret to a value that does not open.
UPDATE keypool.provider_keys SET key_value = 'enc:v1:k1:AAAA' WHERE id = :'one';
\echo :SQLSTATE
UPDATE keypool.provider_keys SET key_value = left(key_value, -4) WHERE id = :'one';
\echo :SQLSTATE
UPDATE keypool.provider_keys SET key_value = left(key_value, -1) WHERE id = :'one';
UPDATE keypool.provider_keys SET key_value = 'enc:v1:lost:' || repeat('A', 48) WHERE id = :'one';
\echo :SQLSTATE
UPDATE keypool.provider_keys SET key_value = 'enc:' || repeat('A', 48) WHERE id = :'one';
\echo :SQLSTATE
UPDATE keypool.provider_keys SET key_value = (SELECT key_value FROM keypool.provider_keys WHERE id = :'two') WHERE id = :'one';
\echo :SQLSTATE
INSERT INTO keypool.provider_keys (id, provider_id, key_value) VALUES ('00000000-0000-8000-8000-000000000003', 'given', 'enc:v1:k1:AAAA');
\echo :SQLSTATE
UPDATE keypool.provider_keys SET key_value = key_value || '' WHERE id = :'one';
SELECT DISTINCT key_value FROM generate_series(1, 9) i, keypool_select('given', i * 0) ORDER BY 1;

-- The same secret is refused in the same provider, however it comes, and taken in another.
\set VERBOSITY terse
SELECT keypool_add_key('given', 'again', 'sk-added');
\echo :SQLSTATE
INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('twice', 'sk-1'), ('twice', 'sk-1 ');
\echo :SQLSTATE
\set VERBOSITY default
INSERT INTO keypool.provider_keys (id, provider_id, key_value) VALUES ('00000000-0000-8000-8000-000000000003', 'given', 'sk-updated');
UPDATE keypool.provider_keys SET key_value = 'sk-copied' WHERE id = :'one';
UPDATE keypool.provider_keys SET key_value = 'sk-updated' WHERE id = :'one';
SELECT keypool_add_key('another', 'again', 'sk-added') IS NOT NULL AS added;
-- One that is deleted may come back, in the same transaction too.
BEGIN;
DELETE FROM keypool.provider_keys WHERE id = :'two';
SELECT keypool_add_key('given', 'back', 'sk-copied') IS NOT NULL AS added;
ROLLBACK;
-- What arrives sealed is taken as it is, and counted by the doctor. A missing fingerprint is made by keypool_heal().
CREATE TEMP TABLE kept AS SELECT * FROM keypool.provider_keys WHERE id = :'two';
DELETE FROM keypool.provider_keys WHERE id = :'two';
SELECT keypool_add_key('given', 'beside', 'sk-copied') AS beside \gset
INSERT INTO keypool.provider_keys SELECT * FROM kept;
SELECT left(result, 17) AS result FROM keypool_doctor() WHERE "check" = 'duplicates';
UPDATE keypool.provider_keys SET fingerprint = NULL WHERE id = :'two';
SELECT result FROM keypool_doctor() WHERE "check" = 'duplicates';
SELECT * FROM keypool_heal();
SELECT left(result, 17) AS result FROM keypool_doctor() WHERE "check" = 'duplicates';
SELECT * FROM keypool_heal();
SELECT keypool_delete_key(:'beside');
SELECT result FROM keypool_doctor() WHERE "check" = 'duplicates';
SELECT count(*) FROM keypool_list_keys() k WHERE to_jsonb(k)::text LIKE '%fingerprint%';

-- Rows that a version before took in stay usable, can be changed and deleted, and are restored.
ALTER TABLE keypool.provider_keys DISABLE TRIGGER before_key_change;
INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value) VALUES ('00000000-0000-8000-8000-000000000004', 'old ', E' a\n', 'sk-old');
ALTER TABLE keypool.provider_keys ENABLE ALWAYS TRIGGER before_key_change;
SELECT * FROM keypool_heal();
SELECT key_value FROM keypool_select('old ');
UPDATE keypool.provider_keys SET priority = 1 WHERE provider_id = 'old ';
CREATE TEMP TABLE old AS SELECT * FROM keypool.provider_keys WHERE provider_id = 'old ';
SELECT keypool_delete_key('00000000-0000-8000-8000-000000000004');
INSERT INTO keypool.provider_keys SELECT * FROM old;
SELECT key_value FROM keypool_select('old ');

-- A meter in binary is its text, and is read as that is.
SELECT convert_from(keypool.meter_send(meter), 'UTF8') = meter::text AS same
FROM CAST('2 total_requests=3 total_tokens=4' AS keypool.meter) meter;
DELETE FROM keypool.provider_keys;
