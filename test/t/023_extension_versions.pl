# 023_extension_versions.pl - an extension of any released version that is updated is the same as a new one, and its keys go on.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('versions');
my $default = $node->safe_psql('postgres', q{SELECT default_version FROM pg_available_extensions WHERE name = 'keypool'});
my @released = split /\n/, $node->safe_psql('postgres', qq{SELECT version FROM pg_available_extension_versions
    WHERE name = 'keypool' AND version <> '$default' ORDER BY version});
cmp_ok(scalar @released, '>=', 1, 'there are released versions');

# Everything about an extension that does not depend on when it was made.
my $described = q{
    WITH member AS (SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'keypool'),
         owned AS (SELECT c.* FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid)
    SELECT 'object', pg_describe_object(classid, objid, 0), obj_description(objid, (SELECT relname FROM pg_class c WHERE c.oid = classid)) FROM member
    UNION ALL SELECT 'function', pg_get_functiondef(p.oid), p.proacl::text FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
    UNION ALL SELECT 'relation', concat_ws(' ', relname, relkind, relreplident, relpersistence, relam), relacl::text FROM owned
    UNION ALL SELECT 'column', concat_ws(' ', o.relname, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attcollation::regcollation),
        pg_get_expr(adbin, adrelid) || col_description(o.oid, attnum)
        FROM owned o JOIN pg_attribute a ON attrelid = o.oid AND attnum > 0 AND NOT attisdropped LEFT JOIN pg_attrdef ON adrelid = o.oid AND adnum = attnum
    UNION ALL SELECT 'constraint', o.relname || ' ' || conname, pg_get_constraintdef(c.oid) FROM owned o JOIN pg_constraint c ON conrelid = o.oid
    UNION ALL SELECT 'index', o.relname, pg_get_indexdef(indexrelid) FROM owned o JOIN pg_index ON indrelid = o.oid
    UNION ALL SELECT 'trigger', concat_ws(' ', pg_get_triggerdef(t.oid), tgenabled), obj_description(t.oid, 'pg_trigger') FROM owned o JOIN pg_trigger t ON tgrelid = o.oid
    UNION ALL SELECT 'view', relname, pg_get_viewdef(oid) FROM owned WHERE relkind = 'v'
    UNION ALL SELECT 'dumped', r.relname, e.extcondition[n] FROM pg_extension e, unnest(e.extconfig) WITH ORDINALITY t (o, n), pg_class r WHERE r.oid = t.o AND extname = 'keypool'
    ORDER BY 1, 2, 3};
my $fresh = $node->safe_psql('postgres', $described);
like($fresh, qr/trigger.*before_key_change.*BEFORE INSERT/s, 'there is something to compare');

for my $version (@released) {
    my $database = "from_$version" =~ tr/./_/r;
    $node->safe_psql('postgres', "CREATE DATABASE $database");
    $node->safe_psql($database, qq{CREATE EXTENSION keypool VERSION '$version' CASCADE});
    $node->safe_psql($database, q{
        SELECT keypool_add_key('p', 'a', 'sk-a', max_rpm => 5);
        SELECT keypool_record(key_id, 10, lease) FROM keypool_select('p', 100);
        CREATE TABLE open AS SELECT key_id, lease FROM keypool_select('p', 100)});
    # What keypool_grant() gave stays, and is in a dump; a role that was dropped since does not stop the update.
    $node->safe_psql('postgres', 'CREATE ROLE app; CREATE ROLE gone');
    $node->safe_psql($database, q{SELECT keypool_grant('app', 'app', 'cooled'), keypool_grant('gone', 'app'); DROP OWNED BY gone; DROP ROLE gone});
    my $open = open_session($node, $database);
    $open->ask(q{SET keypool.test_now = '2026-01-01 12:00:00+00'; SET timezone = 'UTC'});
    is($open->ask(q{SELECT keypool_mark_429(keypool_add_key('cooled', 'a', 'sk-a'), 7)}), '2026-01-01 12:00:07+00', "$version: before the update a 429 cools");
    $open->ask('RESET keypool.test_now');
    is($open->ask(q{SELECT key_value FROM keypool_select('p')}), 'sk-a', "$version: a session uses it");
    like(failure_of($node, 'SELECT * FROM keypool_heal()', $database), qr/^ERROR:  55000: .*^HINT:  Run ALTER EXTENSION keypool UPDATE\.$/ms,
        "$version: before the update heal asks for it");
    my $to_do = q{SELECT string_agg(translate(result, E'\n', ' '), '; ') FROM keypool_doctor() WHERE "check" IN ('extension', 'duplicates') AND result <> 'ok'};
    is($node->safe_psql($database, $to_do), 'is older than its library: run ALTER EXTENSION keypool UPDATE, then SELECT * FROM keypool_heal()',
        "$version: the doctor asks for the update");
    $node->safe_psql($database, 'ALTER EXTENSION keypool UPDATE');
    like($node->safe_psql($database, $to_do), qr/^keys that were not compared with others: \d+; run SELECT \* FROM keypool_heal\(\)$/,
        "$version: and, updated, for a heal");
    my $dump = $node->basedir . "/$database.sql";
    $node->run_log([ 'pg_dump', '-f', $dump, $node->connstr($database) ]);
    $node->safe_psql('postgres', "CREATE DATABASE restored");
    $node->safe_psql('restored', slurp_file($dump));
    for my $where ($database, 'restored') {
        is($node->safe_psql($where, q{SET ROLE app; SELECT cooldown_until IS NOT NULL FROM keypool_try_select('cooled') s, keypool_mark_429(s.key_id, 1.5, s.lease) cooldown_until}),
            't', "$version: rights hold in $where");
    }
    $node->safe_psql('postgres', 'DROP DATABASE restored');
    $node->safe_psql($database, q{SELECT keypool_revoke('app', 'app', 'cooled'); DELETE FROM keypool.grants; DROP ROLE app});
    is($node->safe_psql($database, $described), $fresh, "$version: updated, it is as if it were new");
    is($open->ask(q{SELECT keypool_record(key_id, 5, lease) FROM open; SELECT total_tokens, window_requests, open_reservations FROM keypool_list_keys('p')}),
        "\n15|3|1", "$version: and its keys go on, in a session that was open too");
    $open->close;
    is($node->safe_psql($database, 'SELECT * FROM keypool_heal()'), '2|0', "$version: healed, its keys have fingerprints");
    like(failure_of($node, q{SELECT keypool_add_key('p', 'b', 'sk-a')}, $database), qr/^ERROR:  KP409: /, "$version: by which a secret is known again");
}
# Pages are read as a heap's, whatever new tables are by default.
for my $version (@released, $default) {
    my $database = "elsewhere_$version" =~ tr/./_/r;
    $node->safe_psql('postgres', "CREATE DATABASE $database");
    $node->safe_psql($database, qq{
        CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler;
        SET default_table_access_method = other;
        CREATE EXTENSION keypool VERSION '$version' CASCADE;
        SELECT keypool_add_key('p', 'a', 'sk-a');
        ALTER EXTENSION keypool UPDATE});
    is($node->safe_psql($database, $described), $fresh, "$version: made where another access method is the default, its tables are heaps");
    is($node->safe_psql($database, q{SELECT key_value FROM keypool_select('p')}), 'sk-a', "$version: and its keys go on");
}
experiment('update of the extension', scalar(@released) . ' released versions', '0 differences');
$node->stop;
done_testing();
