# 011_extension_safety.pl - nobody smuggles code in, and nothing is left behind.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('safety');
$node->safe_psql('postgres', 'CREATE ROLE mallory LOGIN');

sub fresh_database { my ($name) = @_; $node->safe_psql('postgres', "CREATE DATABASE $name"); return $name; }

# What Mallory plants: operators and functions that the extension's statements might pick up by mistake. Each tells on itself.
my $traps = q{
    CREATE TABLE %1$s.sprung (what text);
    GRANT ALL ON %1$s.sprung TO PUBLIC;
    CREATE FUNCTION %1$s.trap(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO %1$s.sprung VALUES ('uuid'); RETURN true; END $$;
    CREATE OPERATOR %1$s.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = %1$s.trap);
    CREATE OPERATOR %1$s.> (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = %1$s.trap);
    CREATE FUNCTION %1$s.trap(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO %1$s.sprung VALUES ('text'); RETURN true; END $$;
    CREATE OPERATOR %1$s.= (LEFTARG = text, RIGHTARG = text, FUNCTION = %1$s.trap);
    CREATE FUNCTION %1$s.trap(integer, integer) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO %1$s.sprung VALUES ('integer'); RETURN true; END $$;
    CREATE OPERATOR %1$s.= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = %1$s.trap);
    CREATE FUNCTION %1$s.count() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
    CREATE FUNCTION %1$s.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN INSERT INTO %1$s.sprung VALUES ('now'); RETURN NULL; END $$;
    CREATE FUNCTION %1$s.substring(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO %1$s.sprung VALUES ('substring'); RETURN ''; END $$;
    CREATE FUNCTION %1$s.dearmor(text) RETURNS bytea LANGUAGE plpgsql AS $$ BEGIN INSERT INTO %1$s.sprung VALUES ('dearmor'); RETURN ''; END $$;
};

# All that the extension does with SQL, with the traps first on the search_path.
my $everything = q{
    SELECT keypool_add_key('p', 'a', 'sk-a') AS id \gset
    SELECT key_value FROM keypool_select('p');
    SELECT keypool_set_quota('p', 'q', '{"max_rpm": 1000, "models": ["m*"]}'), keypool_set_provider('p', '{"default_tokens": 5}');
    SELECT keypool_update_key(:'id', '{"account": "org/a", "models": ["m1"]}'), keypool_set_secret(:'id', 'sk-c'), keypool_key('p', 'a');
    SELECT pg_catalog.array_agg(key_id) AS ids, pg_catalog.array_agg(lease) AS leases FROM keypool_select_many('p', 2, 7, 'm1') \gset
    SELECT keypool_record_many(:'ids', NULL, :'leases'), keypool_mark_429(:'id', 0, scope => 'quota:q', model => 'm1'), keypool_clear_cooldown('p', NULL);
    SELECT keypool_set_error_rule('p*', 418, 'teapot', 'ok'), keypool_set_error_rule('p', 418, NULL, 'rate', 'key');
    SELECT class FROM keypool_explain_answer('p', 418, NULL, 'teapot');
    SELECT (r).class FROM pg_catalog.unnest(:'ids'::uuid[]) k, LATERAL (SELECT keypool_report(k, NULL, 418) AS r) reported;
    SELECT keypool_set_error_rule('p*', 418, 'teapot', NULL), keypool_set_error_rule('p', 418, NULL, NULL);
    SELECT status FROM keypool_explain_select('p', except_keys => :'ids');
    SELECT name FROM keypool_list_quotas();
    SELECT keypool_delete_quota('p', 'q'), keypool_update_key(:'id', '{"models": null}');
    SELECT keypool_record(:'id', 1), keypool_toggle_key(:'id', false, 1);
    SET keypool.test_now = '2099-01-01';
    SELECT key_value FROM keypool_select('p');
    SELECT keypool_heal(), keypool_keyring(), keypool_doctor();
    CALL keypool_heal_in_batches();
    SELECT pg_catalog.count(*) FROM keypool.keys, keypool.key_usage_window;
    SELECT keypool_grant('mallory', 'app', 'p'), keypool_revoke('mallory', 'app', 'p');
    SELECT keypool_delete_key(:'id');
    INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('p', 'sk-b');
    INSERT INTO keypool.quotas (provider_id, name, account, models) VALUES ('p', 'r', 'org', '{m*}');
    INSERT INTO keypool.key_state SELECT id, '1' FROM keypool.provider_keys;
    TRUNCATE keypool.provider_keys, keypool.quotas, keypool.providers;
};

for my $when ('before', 'after') {
    my $database = fresh_database("planted_$when");
    my $create = 'CREATE SCHEMA target; SET search_path = evil, public, pg_catalog; CREATE EXTENSION pgcrypto SCHEMA target; CREATE EXTENSION keypool SCHEMA target;';
    $node->safe_psql($database, 'CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;' . ($when eq 'before' ? sprintf($traps, 'evil') : ''));
    $node->safe_psql($database, $create);
    $node->safe_psql($database, sprintf($traps, 'evil')) if $when eq 'after';
    my $path = 'SET search_path = evil, target, pg_catalog;';
    my (undef, undef, $errors) = $node->psql($database, "$path $everything", on_error_stop => 0);
    is($errors, '', "everything works with objects planted $when the extension was created");
    is($node->safe_psql($database, 'SELECT string_agg(DISTINCT what, \' \') FROM evil.sprung'), '', 'and none of them was called');
}

# The same in pg_temp.
my $temporary = fresh_database('planted_temp');
$node->safe_psql($temporary, 'CREATE EXTENSION keypool CASCADE');
my $in_temp = sprintf($traps, 'pg_temp') =~ s/GRANT ALL.*?;//r;
is($node->safe_psql($temporary, "$in_temp SET search_path = pg_temp, public, pg_catalog; $everything SELECT count(*) AS sprung FROM pg_temp.sprung") =~ /(\d+)$/ ? $1 : 'none',
    '0', 'objects in pg_temp are not called');

# A table of a user's in place of the extension's is not taken for it.
my $squatted = fresh_database('squatted');
$node->safe_psql($squatted, 'CREATE SCHEMA keypool');
like(failure_of($node, 'CREATE EXTENSION keypool CASCADE', $squatted), qr/42P06: schema "keypool" already exists/,
    'CREATE EXTENSION refuses a schema keypool that is there already');
$node->safe_psql($squatted, q{DROP SCHEMA keypool; CREATE FUNCTION public.keypool_select(text, bigint, text, bigint, bigint, text, uuid[], interval, bigint) RETURNS int LANGUAGE sql AS 'SELECT 1'});
like(failure_of($node, 'CREATE EXTENSION keypool CASCADE', $squatted), qr/42723: function "keypool_select" already exists/,
    'and a function of that name');

# Who may create it.
$node->safe_psql('postgres', 'CREATE DATABASE mallorys OWNER mallory');
like(failure_of($node, 'SET ROLE mallory; CREATE EXTENSION keypool CASCADE', 'mallorys'), qr/42501/, 'only a superuser may create it');
is($node->safe_psql('postgres', q{SELECT bool_or(trusted) FROM pg_available_extension_versions WHERE name = 'keypool'}), 'f', 'it is not trusted');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid JOIN pg_extension e ON e.oid = d.refobjid
    WHERE e.extname = 'keypool' AND p.prosecdef}), '0', 'no function runs as its owner');
like(failure_of($node, 'ALTER EXTENSION keypool SET SCHEMA evil', 'planted_after'), qr/0A000/, 'it cannot be moved to another schema');

# Rights that PostgreSQL gives by default to what is made are not given to what keypool makes.
my $generous = fresh_database('generous');
$node->safe_psql($generous, q{
    CREATE ROLE friend;
    ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO friend;
    ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO friend;
    ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO friend;
    CREATE EXTENSION keypool CASCADE});
is($node->safe_psql($generous, q{
    SELECT count(*) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'keypool' AND d.deptype = 'e'
    LEFT JOIN pg_proc p ON p.oid = d.objid LEFT JOIN pg_class c ON c.oid = d.objid LEFT JOIN pg_namespace n ON n.oid = d.objid
    WHERE coalesce(p.proacl, c.relacl, n.nspacl)::text LIKE '%friend%'}), '0', 'default privileges open nothing of it');

# Nothing is left.
my $objects = q{SELECT count(*) FROM (SELECT oid FROM pg_class UNION ALL SELECT oid FROM pg_proc UNION ALL SELECT oid FROM pg_type
    UNION ALL SELECT oid FROM pg_namespace UNION ALL SELECT oid FROM pg_trigger UNION ALL SELECT oid FROM pg_constraint) o};
my $clean = fresh_database('clean');
$node->safe_psql($clean, 'CREATE EXTENSION pgcrypto');
my $before = $node->safe_psql($clean, $objects);
$node->safe_psql($clean, q{CREATE EXTENSION keypool; SELECT keypool_add_key('p', 'a', 'sk-a'); SELECT keypool_select('p')});
$node->safe_psql($clean, 'DROP EXTENSION keypool');
is($node->safe_psql($clean, $objects), $before, 'DROP EXTENSION leaves nothing behind');
is($node->safe_psql($clean, q{SELECT count(*) FROM pg_init_privs i WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = i.objoid)
    AND i.classoid = 'pg_class'::regclass}), '0', 'nor any right');

$node->stop;
done_testing();
