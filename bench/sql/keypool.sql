-- keypool.sql - keypool, the functions that it is measured beside, and how pools are made.

SET client_min_messages = warning;
CREATE EXTENSION keypool CASCADE;

CREATE FUNCTION keypool_floor_select(
	provider text, tokens bigint DEFAULT NULL, model text DEFAULT NULL, output_tokens bigint DEFAULT NULL,
	cost bigint DEFAULT NULL, except_keys uuid[] DEFAULT NULL,
	max_wait interval DEFAULT NULL, cached_tokens bigint DEFAULT NULL,
	OUT key_id uuid, OUT key_value text, OUT lease text, OUT key_label text, OUT priority integer, OUT max_rpm bigint,
	OUT max_tpm bigint, OUT status text, OUT retry_after_ms integer, OUT provider_id text, OUT attributes jsonb,
	OUT blocked_by text, OUT blocked_limit text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'keypool_floor';
CREATE FUNCTION keypool_floor_record(
	key uuid, tokens bigint DEFAULT NULL, lease text DEFAULT NULL, output_tokens bigint DEFAULT NULL,
	cached_tokens bigint DEFAULT NULL, cost bigint DEFAULT NULL, model text DEFAULT NULL) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'keypool_floor';
CREATE FUNCTION keypool_floor_mark() RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'keypool_floor';

-- Limits are so high that nothing is refused, unless a lower one is given. Secrets are sealed on the way in.
CREATE PROCEDURE make_pool(provider text, keys integer, priorities integer DEFAULT 1, rpm bigint DEFAULT 1000000000)
	LANGUAGE sql AS $$
	INSERT INTO keypool.provider_keys (provider_id, key_label, key_value, priority, max_rpm, max_tpm)
	SELECT provider, 'bench ' || i, 'sk-bench-' || lpad(i::text, 41, '0'), (i - 1) * priorities / keys, rpm, 1000000000000
	FROM generate_series(1, keys) i
$$;

-- The same with all keys under so many quotas; and with each key under the quota of its account.
CREATE PROCEDURE make_quota_pool(provider text, keys integer, quotas integer) LANGUAGE sql AS $$
	CALL make_pool(provider, keys);
	UPDATE keypool.provider_keys SET account = 'a' WHERE provider_id = provider;
	INSERT INTO keypool.quotas (provider_id, name, account, max_rpm, max_tpm)
	SELECT provider, 'q' || i, 'a', 1000000000, 1000000000000 FROM generate_series(1, quotas) i
$$;
CREATE PROCEDURE make_account_pool(provider text, keys integer, accounts integer, rpm bigint) LANGUAGE sql AS $$
	CALL make_pool(provider, keys);
	UPDATE keypool.provider_keys SET account = 'a' || split_part(key_label, ' ', 2)::int % accounts WHERE provider_id = provider;
	INSERT INTO keypool.quotas (provider_id, name, account, max_rpm)
	SELECT provider, 'q' || i, 'a' || i, rpm FROM generate_series(0, accounts - 1) i
$$;

-- Providers p<first>, p<first + 1>, ...
CREATE PROCEDURE make_providers(providers integer, keys integer, first integer DEFAULT 1) LANGUAGE sql AS $$
	INSERT INTO keypool.provider_keys (provider_id, key_label, key_value, max_rpm, max_tpm)
	SELECT 'p' || p, 'bench ' || i, 'sk-bench-' || lpad(i::text, 41, '0'), 1000000000, 1000000000000
	FROM generate_series(first, first + providers - 1) p, generate_series(1, keys) i
$$;
