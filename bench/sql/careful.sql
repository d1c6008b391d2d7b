-- careful.sql - what plain SQL and PL/pgSQL can do for the same promises.
--
-- Check and reservation are one transaction under a lock of the provider: with row locks alone, two sessions would pick the same key,
-- or, with SKIP LOCKED, pass over a better one that is busy for a moment, and refuse where there is room. The window is exact, in
-- seconds. Only the best key's window is summed: the index gives the order. As in keypool, a reservation does not wait for the disk,
-- which also keeps the lock short; a record does. Secrets are plain text, which favours it.

CREATE TABLE keys (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid(), provider_id text NOT NULL, key_label text, key_value text NOT NULL,
	priority int NOT NULL DEFAULT 0, max_rpm bigint, max_tpm bigint, is_active bool NOT NULL DEFAULT true,
	cooldown_until timestamptz NOT NULL DEFAULT '-infinity', last_grant bigint NOT NULL DEFAULT 0) WITH (fillfactor = 50);
CREATE INDEX keys_order ON keys (provider_id, priority, last_grant, id) WHERE is_active;
-- Apart from the keys, so that no selection waits for a record that waits for the disk.
CREATE TABLE totals (
	key_id uuid PRIMARY KEY REFERENCES keys ON DELETE CASCADE, total_requests bigint NOT NULL DEFAULT 0,
	total_tokens bigint NOT NULL DEFAULT 0, last_used_at timestamptz) WITH (fillfactor = 50);
CREATE TABLE used (
	key_id uuid, second bigint, requests bigint NOT NULL, tokens bigint NOT NULL, PRIMARY KEY (key_id, second)) WITH (fillfactor = 50);

-- A lease is the second of the grant and its estimate.
CREATE FUNCTION careful_select(
	provider text, estimate bigint,
	OUT key_id uuid, OUT key_value text, OUT lease bigint, OUT key_label text, OUT priority integer,
	OUT max_rpm bigint, OUT max_tpm bigint, OUT status text, OUT retry_after_ms bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	now_us bigint;
	now_second bigint;
BEGIN
	PERFORM set_config('synchronous_commit', 'off', true);
	PERFORM pg_advisory_xact_lock(hashtextextended(provider, 0));
	now_us := extract(epoch FROM clock_timestamp()) * 1000000;
	now_second := now_us / 1000000;
	SELECT k.id, k.key_value, k.key_label, k.priority, k.max_rpm, k.max_tpm
	INTO key_id, key_value, key_label, priority, max_rpm, max_tpm
	FROM keys k, LATERAL (
		SELECT coalesce(sum(u.requests), 0) AS requests, coalesce(sum(u.tokens), 0) AS tokens
		FROM used u WHERE u.key_id = k.id AND u.second >= now_second - 60) w
	WHERE k.provider_id = provider AND k.is_active AND k.cooldown_until <= clock_timestamp()
		AND (k.max_rpm IS NULL OR w.requests + 1 <= k.max_rpm)
		AND (k.max_tpm IS NULL OR w.tokens < k.max_tpm AND w.tokens + estimate <= k.max_tpm)
	ORDER BY k.priority, k.last_grant, k.id LIMIT 1;
	IF NOT FOUND THEN
		RAISE 'every key of the provider is cooling or at its limits';
	END IF;
	INSERT INTO used AS u VALUES (careful_select.key_id, now_second, 1, estimate)
	ON CONFLICT (key_id, second) DO UPDATE SET requests = u.requests + 1, tokens = u.tokens + excluded.tokens;
	UPDATE keys SET last_grant = greatest(now_us, last_grant + 1) WHERE id = careful_select.key_id;
	lease := (now_second << 30) + estimate;
	status := 'ok';
END $$;

CREATE FUNCTION careful_record(key uuid, real_tokens bigint, lease bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	now_second bigint := extract(epoch FROM clock_timestamp());
	granted bigint := lease >> 30;
BEGIN
	UPDATE totals SET total_requests = total_requests + 1, total_tokens = total_tokens + real_tokens, last_used_at = now()
	WHERE key_id = key;
	UPDATE used SET tokens = tokens - (lease & ((1 << 30) - 1))
	WHERE key_id = key AND second = granted AND granted >= now_second - 60;
	INSERT INTO used AS u VALUES (key, now_second, 0, real_tokens)
	ON CONFLICT (key_id, second) DO UPDATE SET tokens = u.tokens + excluded.tokens;
	DELETE FROM used WHERE key_id = key AND second < now_second - 60;
END $$;

INSERT INTO keys (provider_id, key_label, key_value, max_rpm, max_tpm)
SELECT 'pool', 'bench ' || i, rpad('sk-bench-', 50, '0'), 1000000000, 1000000000000 FROM generate_series(1, :keys) i;
INSERT INTO totals SELECT id FROM keys;
VACUUM ANALYZE;
-- Plans are made while there are few rows in `used`, and kept when there are many: they must not read the whole table.
SELECT format('ALTER DATABASE %I SET enable_seqscan = off', current_database()) \gexec
