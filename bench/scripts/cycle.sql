SELECT * FROM keypool_select(:provider, 10) \gset
SELECT keypool_record(:key_id, 8, :lease);
