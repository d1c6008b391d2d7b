\set p random(1, :providers)
SELECT * FROM keypool_select('p' || :p, 10);
