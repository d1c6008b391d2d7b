-- The original took the first of the rows that has room. pgbench cannot, so what is recorded is a key drawn at random: that spreads
-- the row locks more evenly, which favours the original.
SELECT k.id, k.key_value, k.key_label, k.priority, k.max_rpm, k.max_tpm,
	coalesce(sum(w.request_count), 0) AS requests, coalesce(sum(w.token_count), 0) AS tokens
FROM provider_keys k LEFT JOIN key_usage_window w
	ON w.key_id = k.id AND w.window_minute >= to_char(now() - interval '1 minute', 'YYYY-MM-DD"T"HH24":"MI')
WHERE k.provider_id = 'pool' AND k.is_active AND (k.cooldown_until IS NULL OR k.cooldown_until <= now())
GROUP BY k.id ORDER BY k.priority, k.last_used_at NULLS FIRST;
\set k random(1, :keys)
INSERT INTO key_usage_window AS w
VALUES ('key-' || :k, to_char(now(), 'YYYY-MM-DD"T"HH24":"MI'), 1, 8)
ON CONFLICT (key_id, window_minute) DO UPDATE
SET request_count = w.request_count + 1, token_count = w.token_count + excluded.token_count;
UPDATE provider_keys SET total_requests = total_requests + 1, total_tokens = total_tokens + 8, last_used_at = now(), updated_at = now()
WHERE id = 'key-' || :k;
DELETE FROM key_usage_window WHERE window_minute < to_char(now() - interval '2 minutes', 'YYYY-MM-DD"T"HH24":"MI');
