SELECT * FROM careful_select('pool', 10) \gset
SELECT careful_record(:key_id, 8, :lease);
