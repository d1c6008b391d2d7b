-- keypool_apply and keypool_export: the configuration as one document.
SET keypool.test_now = '2026-01-01 12:00:00+00';
SET client_min_messages = error;  -- of keys without a secret, by their ids
DELETE FROM keypool.error_rules;
CREATE TEMP TABLE told AS SELECT * FROM keypool_apply('{"providers": {"app": {
  "settings": {"strategy": "fill_first", "max_cooldown": 600},
  "quotas": {"org": {"account": "org", "max_rpd": 100}, "mini": {"models": ["*-mini"], "max_tpm": 5000}},
  "keys": [{"key_label": "a", "account": "org/x", "max_rpm": 5, "priority": 2, "attributes": {"region": "eu", "zone": null}},
           {"key_label": "b", "weight": 3, "expires_at": "2030-01-01T00:00:00Z"},
           {"id": "00000000-0000-8000-8000-0000000000c0"}]}},
  "error_rules": [{"provider": "app*", "http_status": 418, "class": "client"}, {"error_code": "gone", "class": "auth", "scope": "key"}]}');
TABLE told;
SELECT key_label, priority, weight, max_rpm, account, attributes, is_active, state FROM keypool_list_keys('app') ORDER BY 1;
SELECT name, account, models, max_rpd, max_tpm FROM keypool_list_quotas('app');

-- Applied once more, it changes nothing; and neither does what was exported.
SELECT * FROM keypool_apply('{"providers": {"app": {
  "settings": {"strategy": "fill_first", "max_cooldown": 600},
  "quotas": {"org": {"account": "org", "max_rpd": 100}, "mini": {"models": ["*-mini"], "max_tpm": 5000}},
  "keys": [{"key_label": "a", "account": "org/x", "max_rpm": 5, "priority": 2, "attributes": {"region": "eu", "zone": null}},
           {"key_label": "b", "weight": 3, "expires_at": "2030-01-01T00:00:00Z"},
           {"id": "00000000-0000-8000-8000-0000000000c0"}]}},
  "error_rules": [{"provider": "app*", "http_status": 418, "class": "client"}, {"error_code": "gone", "class": "auth", "scope": "key"}]}', prune => true);
SELECT * FROM keypool_apply(keypool_export(), prune => true);
SELECT keypool_export('app') #- '{providers,app,keys}';
SELECT k - 'id' FROM jsonb_array_elements(keypool_export('app') #> '{providers,app,keys}') k ORDER BY k ->> 'key_label';
SELECT keypool_export() ? 'error_rules', keypool_export('nobody');

-- A key without a secret is off until it is given one.
SELECT status FROM keypool_try_select('app');
SELECT key_label, status, blocked_limit FROM keypool_explain_select('app') ORDER BY 1;
SELECT value FROM keypool_metrics('app') WHERE name = 'keypool_secrets_unopened';
SELECT "check", severity, number, result FROM keypool_doctor() WHERE "check" LIKE 'secrets%' OR "check" = 'duplicates';
SELECT * FROM keypool_heal();
SELECT keypool_set_secret(keypool_key('app', 'a'), 'sk-apply-a');
SELECT key_label, key_value FROM keypool_try_select('app');
SELECT key_label, state FROM keypool_list_keys('app') ORDER BY 1;
\set VERBOSITY terse
UPDATE keypool.provider_keys SET key_value = 'enc:none' WHERE key_label = 'a';
INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('app', '');

-- It replaces what it names: what is left out is as by default. What it does not name stays, or is pruned.
SELECT object, name, change, columns FROM keypool_apply('{"providers": {"app": {"settings": {"strategy": "rotate"}, "quotas": {"org": {"max_rpd": 50}}, "keys": [{"key_label": "a", "max_tpm": 7}]}}}');
SELECT key_label, key_value, max_rpm, max_tpm, priority FROM keypool_try_select('app');
SELECT object, name, change FROM keypool_apply('{"providers": {"app": {"quotas": {"org": {"max_rpd": 50}}, "keys": [{"key_label": "a", "max_tpm": 7}]}}}', prune => true) ORDER BY 1, 2;
SELECT key_label, is_active FROM keypool_list_keys('app') ORDER BY 1;
SELECT object, name, change FROM keypool_apply('{"error_rules": [{"provider": "app*", "http_status": 418, "class": "server"}]}', prune => true);
TABLE keypool.error_rules;

-- Quotas that go make room for new ones, and keys that are off for a time stay off.
SELECT keypool_set_quota('app', 'q' || i, '{}') IS NOT NULL FROM generate_series(1, 2) i;
SELECT keypool_toggle_key(keypool_key('app', 'a'), false, 60);
SELECT object, name, change FROM keypool_apply('{"providers": {"app": {"quotas": {"r1": {}, "r2": {}, "org": {"max_rpd": 50}}, "keys": []}}}', prune => true) ORDER BY 1, 2;
SELECT object, name, change FROM keypool_apply('{"providers": {"app": {"quotas": {"org": {"max_rpd": 50}}, "keys": []}}}', prune => true) ORDER BY 1, 2;
SELECT key_label, is_active, inactive_until IS NULL AS stays FROM keypool.provider_keys WHERE provider_id = 'app' ORDER BY 1;
UPDATE keypool.provider_keys SET inactive_until = 'infinity' WHERE key_label = 'a';
SELECT object, name, change, columns FROM keypool_apply(keypool_export('app'));
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM keypool_apply('{}');
ROLLBACK;
SELECT keypool_toggle_key(keypool_key('app', 'a'), true);

-- A plan.
BEGIN;
SELECT object, name, change FROM keypool_apply('{"providers": {"app": {"quotas": {}}}}', prune => true);
ROLLBACK;
SELECT name FROM keypool_list_quotas('app');

-- Whatever is wrong is told with its place, and changes nothing.
\set VERBOSITY default
SELECT keypool_apply(NULL);
SELECT keypool_apply('[]');
SELECT keypool_apply('{"provider": {}}');
SELECT keypool_apply('{"providers": null}');
SELECT keypool_apply('{"providers": {"app": null}}');
SELECT keypool_apply('{"providers": {"app": {"key": []}}}');
SELECT keypool_apply('{"providers": {"app": {"keys": {}}}}');
SELECT keypool_apply('{"providers": {"app": {"keys": [1]}}}');
SELECT keypool_apply('{"providers": {"": {"keys": []}}}');
SELECT keypool_apply('{"providers": {" app": {"keys": []}}}');
SELECT keypool_apply('{"providers": {"app": {"settings": {"max_cooldown": 0}}}}');
SELECT keypool_apply('{"providers": {"app": {"quotas": {"of all \"": {"max_rpm": -1}}}}}');
SELECT keypool_apply('{"providers": {"app": {"quotas": {"org": {"max_rpm": "5"}}}}}');
SELECT keypool_apply('{"providers": {"app": {"quotas": {"org": {"account": "a//b"}}}}}');
SELECT keypool_apply('{"providers": {"app": {"keys": [{"key_label": "new"}, {"key_label": "x", "max_rpms": 5}]}}}');
SELECT keypool_apply('{"providers": {"app": {"keys": [{"key_label": "new"}, {"key_label": "x", "key_value": "sk-secret"}]}}}');
SELECT keypool_apply('{"providers": {"app": {"keys": [{"key_label": "new"}, {"key_label": "x", "secret": "sk-secret"}]}}}');
SELECT keypool_apply('{"providers": {"app": {"keys": [{"max_rpm": 5}]}}}');
SELECT keypool_apply('{"providers": {"app": {"keys": [{"id": "sk-secret"}]}}}');
SELECT keypool_apply('{"providers": {"app": {"keys": [{"key_label": "new"}, {"key_label": "new"}]}}}');
SELECT keypool_apply('{"providers": {"app": {"keys": [{"id": "00000000-0000-8000-8000-0000000000c0"}, {"id": "00000000-0000-8000-8000-0000000000C0"}]}}}');
SELECT keypool_apply(jsonb_build_object('providers', jsonb_build_object('app', jsonb_build_object('keys',
  jsonb_build_array(jsonb_build_object('key_label', 'a'), jsonb_build_object('id', keypool_key('app', 'a')))))));
SELECT keypool_apply('{"providers": {"other": {"keys": [{"id": "00000000-0000-8000-8000-0000000000c0"}]}}}');
SELECT keypool_add_key('app', 'b', 'sk-apply-b') IS NOT NULL;
SELECT keypool_apply('{"providers": {"app": {"keys": [{"key_label": "b"}]}}}');
SELECT keypool_apply('{"error_rules": [{"class": "auth"}]}');
SELECT keypool_apply('{"error_rules": [{"http_status": 418, "class": "teapot"}]}');
SELECT keypool_apply('{"error_rules": [{"http_status": 418, "class": "auth"}, {"http_status": 418, "class": "rate"}]}');
SELECT keypool_apply('{"providers": {"app": {"keys": [{"key_label": "new"}]}}, "error_rules": [{"http_status": 5, "class": "auth"}]}');
SELECT count(*) FROM keypool.provider_keys WHERE key_label = 'new';
SELECT keypool_apply('{}'), keypool_apply('{"providers": {}}');

-- Into an empty database.
CREATE TEMP TABLE document AS SELECT keypool_export() AS document;
DELETE FROM keypool.provider_keys;
DELETE FROM keypool.quotas;
DELETE FROM keypool.providers;
DELETE FROM keypool.error_rules;
SELECT object, count(*), min(change) FROM document, keypool_apply(document) GROUP BY 1 ORDER BY 1;
SELECT keypool_export() = document FROM document;

DELETE FROM keypool.provider_keys;
DELETE FROM keypool.quotas;
DELETE FROM keypool.providers;
DELETE FROM keypool.error_rules;
RESET keypool.test_now;
