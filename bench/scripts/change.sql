-- A change that an operator may make at any time: the limit of one key of some provider.
\set p random(1, :providers)
UPDATE keypool.provider_keys SET max_rpm = 2000000001 - max_rpm
WHERE id = (SELECT id FROM keypool.provider_keys WHERE provider_id = 'p' || :p ORDER BY id LIMIT 1);
