SELECT keypool_record(:key_id, 8, nullif(:lease::text, '0')) AS recorded, * FROM keypool_select(:provider, 10) \gset
