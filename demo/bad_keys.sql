-- bad_keys.sql - keys of which keypool does not know yet that the provider will not take them.
SELECT provider_id AS provider, key_label, account FROM keypool_list_keys()
WHERE id IN (
    SELECT keypool_add_key('openai', 'revoked', 'sk-demo-revoked', priority => -1, settings => '{"account": "acme/support"}')
    UNION ALL
    SELECT keypool_add_key('openai', 'lapsed-' || i, 'sk-demo-lapsed-' || i, priority => -1, settings => '{"account": "lapsed"}')
    FROM generate_series(1, 3) i)
ORDER BY 2;
SELECT keypool_set_quota('openai', 'lapsed', '{"account": "lapsed", "max_rpm": 900}') IS NOT NULL AS quota_of_their_account;
