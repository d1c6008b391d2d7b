# 023_extension_versions.pl - an extension of any released version is not served before it is updated; then it is the same as a new
# one, and its keys go on with their counters.

use strict;
use warnings FATAL => 'all';

use FirstVersion;
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

# What their keys hold, at the time that every session believes it is: two that are in use, and others with all kinds of counters.
$node->append_conf('postgresql.conf', "keypool.test_now = '2026-01-01 12:00:00+00'\ntimezone = 'UTC'\n");
$node->reload;
my $now = 1767268800;    # 2026-01-01 12:00:00 UTC
my $us = 1_000_000;
my ($used, $cooled) = map { sprintf '00000000-0000-8000-8000-%012d', $_ } 1, 2;
my @keys = (
    { id => $used, provider => 'p', label => 'a', secret => 'sk-a', max_rpm => 5, state => {
        total_requests => 40, total_tokens => 400, last_used_at => ($now - 5) * $us, second => [ [ $now - 70, 3, 30 ], [ $now - 5, 1, 10 ] ],
        minute => [ [ $now / 60 - 2, 3, 30, 0 ], [ $now / 60 - 1, 1, 10, 0 ] ], reserved => [ [ $now - 5, 2, 1, 100 ] ] } },
    { id => $cooled, provider => 'cooled', label => 'a', secret => 'sk-cooled', state => {
        total_requests => 1, last_used_at => $now * $us, last_429_at => $now * $us, cooldown_until => ($now + 7) * $us,
        second => [ [ $now, 1, 0 ] ], minute => [ [ $now / 60, 1, 0, 1 ] ] } },
);
my $expected = '';
srand 23;
for my $i (10 .. 49) {
    my $key = { id => sprintf('00000000-0000-8000-8000-%012d', $i), provider => 'many', label => "many $i", secret => "sk-$i" };
    push @keys, $key;
    my ($requests, $at) = (1 + int(rand 1e6), $now - int(rand 4000));
    my $cools = rand() < 0.5;
    $key->{state} = { total_requests => $requests, total_tokens => $requests * 1000 + $i, last_used_at => $at * $us, second => [ [ $at, 2, $i ] ],
        minute => [ [ int($at / 60), 2, $i, $i % 3 ] ], $cools ? (last_429_at => ($at - 1) * $us, cooldown_until => ($now + 10 * $i) * $us) : () } if $i % 10;
    my %state = %{ $key->{state} // {} };
    $expected .= join('|', $key->{label}, $state{total_requests} // 0, $state{total_tokens} // 0, map { ($state{$_} // 0) / $us } qw(last_used_at last_429_at cooldown_until)) . "\n";
}
chomp $expected;
my $totals = q{SELECT key_label, total_requests, total_tokens, } . join(', ', map { "coalesce(extract(epoch FROM $_)::bigint, 0)" } qw(last_used_at last_429_at cooldown_until))
  . q{ FROM keypool_list_keys('many') ORDER BY key_label};
my $minutes = join "\n", map { my $m = $_; "$m->[0]|$m->[1]|$m->[2]" } ([ 'a 11:59', 1, '10|0' ], [ 'a 11:58', 3, '30|0' ], [ 'cooled 12:00', 1, '0|1' ]);
my $usage = q{SELECT CASE provider_id WHEN 'p' THEN 'a' ELSE provider_id END || to_char(window_minute, ' HH24:MI'), request_count, token_count, rate_limited_count
    FROM keypool_list_keys() k, keypool_usage(k.id) u WHERE provider_id <> 'many' ORDER BY k.provider_id DESC, window_minute DESC};

for my $version (@released) {
    my $database = "from_$version" =~ tr/./_/r;
    make_first_version($node, $database, $version, @keys);
    # What keypool_grant() gave stays, and is in a dump; a role that was dropped since does not stop the update.
    $node->safe_psql('postgres', 'CREATE ROLE app; CREATE ROLE gone');
    $node->safe_psql($database, q{
        ALTER TABLE keypool.grants DISABLE TRIGGER USER;
        INSERT INTO keypool.grants VALUES ('app', 'app', 'cooled'), ('gone', 'app', NULL);
        ALTER TABLE keypool.grants ENABLE ALWAYS TRIGGER after_grant_change;
        GRANT EXECUTE ON FUNCTION keypool_select, keypool_try_select, keypool_peek, keypool_record, keypool_release, keypool_mark_429 TO app, gone;
        DROP OWNED BY gone;
        DROP ROLE gone});
    my $open = open_session($node, $database);
    for my $statement (q{SELECT * FROM keypool_select('p')}, q{SELECT * FROM keypool_try_select('p', 5)}, q{SELECT * FROM keypool_peek('p')},
        "SELECT keypool_record('$used')", "SELECT keypool_record('$used', 5, 4611686018427387904)", "SELECT keypool_release('$used', 4611686018427387904)",
        "SELECT keypool_mark_429('$used')", "SELECT keypool_mark_429('$used', 5, 4611686018427387904)", "SELECT keypool_clear_cooldown('$used')",
        q{SELECT keypool_add_key('p', 'b', 'sk-b')}, q{SELECT keypool_add_key('p', 'b', 'sk-b', 0, 5, 5)}, "SELECT keypool_toggle_key('$used', false)",
        "SELECT keypool_delete_key('$used')", 'SELECT * FROM keypool_list_keys()', "SELECT * FROM keypool_usage('$used')", 'SELECT * FROM keypool.keys',
        'SELECT * FROM keypool_heal()', 'CALL keypool_heal_in_batches()', 'SELECT * FROM keypool_doctor()', 'SELECT * FROM keypool.keyring', q{SELECT keypool_grant('app', 'app')}, q{SELECT keypool_revoke('app', 'app')},
        q{INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('p', 'sk-b')}, 'UPDATE keypool.provider_keys SET priority = 1',
        'DELETE FROM keypool.provider_keys', "INSERT INTO keypool.key_state VALUES ('$used', '1 total_requests=1')")
    {
        like($open->failure($statement), qr/^ERROR:  55000: .*^HINT:  Run ALTER EXTENSION keypool UPDATE\.$/ms, "$version: not served before the update: $statement");
    }
    my $to_do = q{SELECT string_agg(translate(result, E'\n', ' '), '; ') FROM keypool_doctor() WHERE "check" IN ('extension', 'duplicates') AND result <> 'ok'};
    $node->safe_psql($database, 'ALTER EXTENSION keypool UPDATE');
    like($node->safe_psql($database, $to_do), qr/^keys that were not compared with others: \d+; run SELECT \* FROM keypool_heal\(\)$/,
        "$version: updated, the doctor asks for a heal");
    is($node->safe_psql($database, $totals), $expected, "$version: totals and cooldowns are kept");
    is($node->safe_psql($database, $usage), $minutes, "$version: and the minutes");
    my $dump = $node->basedir . "/$database.sql";
    $node->run_log([ 'pg_dump', '-f', $dump, $node->connstr($database) ]);
    $node->safe_psql('postgres', "CREATE DATABASE restored");
    $node->safe_psql('restored', slurp_file($dump));
    is($node->safe_psql('restored', $totals), $expected, "$version: also in a dump");
    for my $where ($database, 'restored') {
        my $asked = q{SET ROLE app; SELECT status, retry_after_ms, keypool_mark_429('%s', 9.5) FROM keypool_try_select('cooled')};
        is($node->safe_psql($where, sprintf $asked, $cooled), 'cooling|7000|2026-01-01 12:00:09.5+00', "$version: rights hold in $where, and the cooldown");
    }
    $node->safe_psql('postgres', 'DROP DATABASE restored');
    $node->safe_psql($database, q{SELECT keypool_revoke('app', 'app', 'cooled'); DELETE FROM keypool.grants; DROP ROLE app});
    is($node->safe_psql($database, $described), $fresh, "$version: updated, it is as if it were new");
    is($open->ask(q{SELECT total_tokens, window_requests, window_tokens, open_reservations, in_flight FROM keypool_list_keys('p')}), '400|2|110|1|1',
        "$version: its keys go on, in a session that was open too");
    like($open->failure("SELECT keypool_record('$used', 5, '4611686018427387904')"), qr/^ERROR:  22023: lease is not one of this version/, "$version: a lease of before is none");
    is($open->ask("SELECT keypool_record('$used', 5); SELECT total_requests, total_tokens, window_requests, window_tokens, open_reservations FROM keypool_list_keys('p')"),
        "t\n41|405|2|15|0", "$version: but its call is settled without");
    is($open->ask(q{SELECT count(DISTINCT lease) FROM generate_series(1, 3) i, LATERAL keypool_select('p', i * 0) s WHERE s.key_value = 'sk-a'}), '3', "$version: there is as much room as before");
    is($open->ask(q{SELECT status FROM keypool_try_select('p')}), 'limited', "$version: and no more");
    $open->close;
    is($node->safe_psql($database, 'SELECT * FROM keypool_heal()'), scalar(@keys) . '|0', "$version: healed, its keys have fingerprints");
    like(failure_of($node, q{SELECT keypool_add_key('p', 'b', 'sk-a')}, $database), qr/^ERROR:  KP409: /, "$version: by which a secret is known again");
}
# The type of 0.1.0 goes, and takes nothing of a user's along.
$node->safe_psql('postgres', 'CREATE DATABASE users');
$node->safe_psql('users', q{CREATE EXTENSION keypool VERSION '0.1.0' CASCADE});
for my $used (
    [ 'CREATE TABLE own (state keypool.state)', 'DROP TABLE own', 'column state of table own' ],
    [ 'CREATE TABLE own (state keypool.state[])', 'DROP TABLE own', 'column state of table own' ],
    [ 'CREATE DOMAIN own AS keypool.state; CREATE TABLE owns (own own)', 'DROP DOMAIN own CASCADE', 'type own' ],
    [ 'CREATE FUNCTION own(keypool.state) RETURNS text LANGUAGE sql AS $$ SELECT $1::text $$', 'DROP FUNCTION own', 'function own\(keypool.state\)' ],
    [ 'CREATE FUNCTION own(keypool.state) RETURNS text LANGUAGE sql AS $$ SELECT $1::text $$; ALTER EXTENSION pgcrypto ADD FUNCTION own(keypool.state)',
        'ALTER EXTENSION pgcrypto DROP FUNCTION own(keypool.state); DROP FUNCTION own', 'function own\(keypool.state\)' ],
) {
    my ($make, $drop, $named) = @$used;
    $node->safe_psql('users', $make);
    like(failure_of($node, 'ALTER EXTENSION keypool UPDATE', 'users'), qr/2BP01: something that is not keypool's .*^DETAIL:  $named$/ms, "the update takes no $named");
    $node->safe_psql('users', $drop);
}
$node->safe_psql('users', 'ALTER EXTENSION keypool UPDATE');
is($node->safe_psql('users', $described), $fresh, 'without them it goes on');
# Pages are read as a heap's, whatever new tables are by default.
for my $version (@released, $default) {
    my $database = "elsewhere_$version" =~ tr/./_/r;
    $node->safe_psql('postgres', "CREATE DATABASE $database");
    $node->safe_psql($database, qq{
        CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler;
        SET default_table_access_method = other;
        CREATE EXTENSION keypool VERSION '$version' CASCADE;
        ALTER EXTENSION keypool UPDATE;
        SELECT keypool_add_key('p', 'a', 'sk-a')});
    is($node->safe_psql($database, $described), $fresh, "$version: made where another access method is the default, its tables are heaps");
    is($node->safe_psql($database, q{SELECT key_value FROM keypool_select('p')}), 'sk-a', "$version: and it serves");
}
experiment('update of the extension', scalar(@released) . ' released versions, ' . @keys . ' keys', '0 differences');
$node->stop;
done_testing();
