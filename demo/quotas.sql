-- quotas.sql - tells keypool what the providers count together: the accounts of the keys, and the limits of each.
--
-- The original had a limit for each key. No provider of these has: every key gets the account of its team, whose name
-- its label begins with, and its own limits go. Names of quotas are for people: "acme/search gpt-5".

SELECT count(keypool_update_key(id, jsonb_build_object(
    'account', 'acme/' || split_part(key_label, '-', 1), 'max_rpm', NULL, 'max_tpm', NULL))) AS keys_with_accounts
FROM keypool_list_keys();

WITH accounts AS (
    SELECT provider_id, account, 'project' AS whose FROM keypool_list_keys()
    UNION SELECT provider_id, split_part(account, '/', 1), 'organization' FROM keypool_list_keys()
), limits (provider_id, whose, family, settings) AS (VALUES
    ('openai', 'project', 'gpt-5',
     '{"models": ["gpt-5*"], "except_models": ["gpt-5-mini*"], "max_rpm": 40, "max_tpm": 15000}'::jsonb),
    ('openai', 'organization', 'gpt-5', '{"models": ["gpt-5*"], "except_models": ["gpt-5-mini*"], "max_rpm": 200}'),
    ('openai', 'project', 'gpt-5-mini', '{"models": ["gpt-5-mini*"], "max_rpm": 200}'),
    ('openai', 'organization', 'gpt-5-mini', '{"models": ["gpt-5-mini*"], "max_rpm": 900}'),
    ('anthropic', 'project', 'claude-opus', '{"models": ["claude-opus*"], "max_output_tpm": 12000}'),
    ('anthropic', 'organization', 'claude-opus',
     '{"models": ["claude-opus*"], "max_rpm": 300, "counts": "input", "max_tpm": 200000, "max_output_tpm": 45000}'),
    ('anthropic', 'project', 'claude-sonnet', '{"models": ["claude-sonnet*"], "counts": "input", "max_tpm": 70000}'),
    ('anthropic', 'organization', 'claude-sonnet',
     '{"models": ["claude-sonnet*"], "counts": "input", "max_tpm": 350000, "max_output_tpm": 80000}'),
    ('gemini', 'project', 'gemini-2.5-flash',
     '{"models": ["gemini-2.5-flash*"], "max_rpm": 50, "counts": "prompt", "max_tpm": 30000}'),
    ('gemini', 'project', 'gemini-2.5-pro',
     '{"models": ["gemini-2.5-pro*"], "max_rpd": 25, "time_zone": "America/Los_Angeles"}'),
    ('deepseek', 'organization', 'deepseek', '{"max_in_flight": 6}'),
    ('mistral', 'organization', 'mistral', '{"max_rpm": 360, "burst_seconds": 1}')
)
SELECT provider_id AS provider, whose, family, settings - 'models' - 'except_models' AS limits,
       count(keypool_set_quota(provider_id, account || ' ' || family,
                               settings || jsonb_build_object('account', account))) AS quotas
FROM limits JOIN accounts USING (provider_id, whose) GROUP BY 1, 2, 3, 4 ORDER BY 1, 3, 2;

-- A quota counts from its making. What the original had used in the last minute, as late as it can have been, is
-- recorded once more, so that it counts there, too. Where only seconds or open calls count, nothing is left of it.
CREATE TABLE original.carried AS
SELECT key_id, (token_count + request_count - 1) / request_count AS tokens, model
FROM original.key_usage_window JOIN original.provider_keys ON id = key_id
JOIN (VALUES ('openai', 'gpt-5-mini'), ('anthropic', 'claude-sonnet-4-5'), ('gemini', 'gemini-2.5-flash'))
     AS used (provider_id, model) USING (provider_id)
CROSS JOIN generate_series(1, request_count)
WHERE (window_minute || ':00+00')::timestamptz > now() - interval '2 minutes';

SELECT count(keypool_record(key_id::uuid, tokens, model => model)) AS carried_requests FROM original.carried;
