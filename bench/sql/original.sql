-- original.sql - the tables of the service that keypool began as, and their indexes.
--
-- It talked to PostgreSQL from outside: scripts/original-*.sql are its statements. It sealed secrets in the service. Here they are plain
-- text, and nobody opens them, which favours it.

CREATE TABLE provider_keys (
	id text PRIMARY KEY, provider_id text NOT NULL, key_label text, key_value text NOT NULL, priority int NOT NULL DEFAULT 0,
	max_rpm bigint, max_tpm bigint, is_active bool NOT NULL DEFAULT true, last_429_at timestamptz, cooldown_until timestamptz,
	total_requests bigint NOT NULL DEFAULT 0, total_tokens bigint NOT NULL DEFAULT 0, last_used_at timestamptz,
	created_at timestamptz, updated_at timestamptz);
CREATE TABLE key_usage_window (
	key_id text REFERENCES provider_keys ON DELETE CASCADE, window_minute text, request_count int NOT NULL,
	token_count bigint NOT NULL, PRIMARY KEY (key_id, window_minute));

INSERT INTO provider_keys (id, provider_id, key_label, key_value, max_rpm, max_tpm, created_at, updated_at)
SELECT 'key-' || i, 'pool', 'bench ' || i, rpad('sk-bench-', 50, '0'), 1000000000, 1000000000000, now(), now()
FROM generate_series(1, :keys) i;
VACUUM ANALYZE;
