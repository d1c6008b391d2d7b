-- The extension's objects explain themselves, and are closed to the public.
SELECT pg_describe_object(classid, objid, objsubid) AS without_comment
FROM pg_depend d
WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'keypool')
  AND deptype = 'e' AND obj_description(objid, classid::regclass::name) IS NULL
  AND NOT (classid = 'pg_type'::regclass AND (SELECT typrelid <> 0 OR typcategory = 'A' FROM pg_type t WHERE t.oid = objid))
ORDER BY 1;
SELECT a.attrelid::regclass AS "table", a.attname AS without_comment
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'keypool'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
  AND col_description(a.attrelid, a.attnum) IS NULL
ORDER BY 1, 2;
SELECT tgname AS without_comment FROM pg_trigger
WHERE NOT tgisinternal AND tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'keypool'::regnamespace)
  AND obj_description(oid, 'pg_trigger') IS NULL;

CREATE ROLE keypool_nobody;
SELECT p.oid::regprocedure AS open_to_public FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'keypool') AND d.deptype = 'e'
  AND has_function_privilege('keypool_nobody', p.oid, 'EXECUTE');
SELECT c.oid::regclass AS open_to_public FROM pg_class c
WHERE c.relnamespace = 'keypool'::regnamespace AND c.relkind IN ('r', 'v')
  AND has_table_privilege('keypool_nobody', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER');
SET ROLE keypool_nobody;
SELECT * FROM keypool_select('any');
\echo :SQLSTATE
RESET ROLE;
-- A role that was granted rights needs none on the tables.
SELECT keypool_grant('keypool_nobody', 'operator');
SET ROLE keypool_nobody;
SELECT keypool_add_key('objects', 'granted', 'sk-objects') AS added \gset
SELECT key_label, key_value FROM keypool_select('objects');
SELECT keypool_record(:'added', 1);
SELECT keypool_toggle_key(:'added', false);
SELECT * FROM keypool_heal();
SELECT key_label, is_active, total_requests FROM keypool_list_keys('objects');
SELECT keypool_delete_key(:'added');
TABLE keypool.provider_keys;
\echo :SQLSTATE
SELECT count(*) FROM keypool.keys;
RESET ROLE;
SELECT keypool_revoke('keypool_nobody', 'operator');
DROP ROLE keypool_nobody;

-- No function runs as its owner, and only the listed ones are there.
SELECT count(*) FROM pg_proc WHERE proname LIKE 'keypool%' AND prosecdef;
\pset format unaligned
SELECT proname, pg_get_function_arguments(oid) AS arguments, pg_get_function_result(oid) AS result, provolatile, proparallel
FROM pg_proc WHERE proname LIKE 'keypool\_%' AND prokind = 'f' ORDER BY 1;
