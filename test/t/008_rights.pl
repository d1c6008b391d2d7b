# 008_rights.pl - every function and relation, as every kind of role: the outcome is that of a table.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('rights');
$node->safe_psql('postgres', q{
    CREATE ROLE nobody; CREATE ROLE app; CREATE ROLE app_one; CREATE ROLE monitor; CREATE ROLE monitor_one;
    CREATE ROLE operator; CREATE ROLE operator_one; CREATE ROLE member; CREATE ROLE member_noinherit NOINHERIT;
    CREATE ROLE plain;
    GRANT app_one TO member; GRANT app_one TO member_noinherit;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO plain;
    GRANT USAGE ON SCHEMA keypool TO plain; GRANT SELECT ON keypool.status, keypool.keys, keypool.metrics, keypool.open_calls, keypool.key_usage_window, keypool.keyring TO plain;
    SELECT keypool_grant('app', 'app'), keypool_grant('app_one', 'app', 'one'),
      keypool_grant('monitor', 'monitor'), keypool_grant('monitor_one', 'monitor', 'one'),
      keypool_grant('operator', 'operator'), keypool_grant('operator_one', 'operator', 'one');
    INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value) VALUES
      ('00000000-0000-8000-8000-000000000001', 'one', 'label', 'sk-one'), ('00000000-0000-8000-8000-000000000002', 'two', 'label', 'sk-two');
    INSERT INTO keypool.quotas (provider_id, name) VALUES ('one', 'quota'), ('two', 'quota');
});

my @roles = qw(nobody app app_one member member_noinherit monitor monitor_one operator operator_one plain postgres);
my %id = (one => "'00000000-0000-8000-8000-000000000001'", two => "'00000000-0000-8000-8000-000000000002'");

# A call on a provider's key: which roles may do it on provider one, and on provider two.
my $use_one = 'app app_one member operator operator_one postgres';
my $use_two = 'app operator postgres';
my $look_one = 'monitor monitor_one operator operator_one postgres';
my $look_two = 'monitor operator postgres';
my $operate_one = 'operator operator_one postgres';
my $operate_two = 'operator postgres';
my @calls = (
    [ q{SELECT 1 FROM keypool_select('%P')}, $use_one, $use_two ],
    [ q{SELECT 1 FROM keypool_try_select('%P')}, $use_one, $use_two ],
    [ q{SELECT 1 FROM keypool_select_first(ARRAY['%P'])}, $use_one, $use_two ],
    [ q{SELECT 1 FROM keypool_report(%K, NULL, 200)}, $use_one, $use_two ],
    [ q{SELECT 1 FROM keypool_explain_answer('%P', 429)}, "$use_one monitor monitor_one", "$use_two monitor" ],
    [ q{SELECT 1 FROM keypool_peek('%P')}, "$use_one monitor monitor_one", "$use_two monitor" ],
    [ q{SELECT 1 FROM keypool_select_many('%P', 2)}, $use_one, $use_two ],
    [ q{SELECT 1 FROM keypool_explain_select('%P')}, "$use_one monitor monitor_one", "$use_two monitor" ],
    [ q{SELECT keypool_record(%K, 1)}, $use_one, $use_two ],
    [ q{SELECT keypool_record_many(ARRAY[%K]::uuid[], ARRAY[1])}, $use_one, $use_two ],
    [ q{SELECT keypool_release(%K, (SELECT '%L'))}, $use_one, $use_two ],
    [ q{SELECT keypool_mark_429(%K, 0)}, $use_one, $use_two ],
    [ q{SELECT 1 FROM keypool_usage(%K)}, $look_one, $look_two ],
    [ q{SELECT 1 FROM keypool_list_keys('%P')}, $look_one, $look_two ],
    [ q{SELECT 1 FROM keypool_list_quotas('%P')}, $look_one, $look_two ],
    [ q{SELECT 1 FROM keypool_status('%P')}, $look_one, $look_two ],
    [ q{SELECT 1 FROM keypool_metrics('%P', true)}, $look_one, $look_two ],
    [ q{SELECT 1 FROM keypool_open_calls('%P')}, $look_one, $look_two ],
    [ q{SELECT 1 FROM keypool_provider_usage('%P')}, $look_one, $look_two ],
    [ q{SELECT 1 FROM keypool_events('%P')}, $look_one, $look_two ],
    [ q{SELECT keypool_key('%P', 'label')}, $look_one, $look_two ],
    [ q{SELECT keypool_clear_cooldown(%K)}, $operate_one, $operate_two ],
    [ q{SELECT keypool_clear_cooldown('%P', 'quota')}, $operate_one, $operate_two ],
    [ q{SELECT keypool_drop_open_calls('%P')}, $operate_one, $operate_two ],
    [ q{SELECT keypool_drop_open_calls('%P', %K)}, $operate_one, $operate_two ],
    [ q{SELECT keypool_add_key('%P', 'new', 'sk-new')}, $operate_one, $operate_two ],
    [ q{SELECT keypool_update_key(%K, '{"max_rpm": 5}')}, $operate_one, $operate_two ],
    [ q{SELECT keypool_set_secret(%K, 'sk-new')}, $operate_one, $operate_two ],
    [ q{SELECT keypool_set_quota('%P', 'new', '{"max_rpm": 5}')}, $operate_one, $operate_two ],
    [ q{SELECT keypool_delete_quota('%P', 'quota')}, $operate_one, $operate_two ],
    [ q{SELECT keypool_set_provider('%P', '{"default_tokens": 5}')}, $operate_one, $operate_two ],
    [ q{SELECT keypool_toggle_key(%K, true)}, $operate_one, $operate_two ],
    [ q{SELECT keypool_delete_key(%K)}, $operate_one, $operate_two ],
);

# What is about no provider in particular.
my @others = (
    [ 'SELECT keypool_heal()',                        'operator postgres' ],
    [ 'SELECT keypool_keyring()',                     'monitor operator postgres' ],
    [ 'SELECT keypool_doctor()',                      'monitor operator postgres' ],
    [ 'SELECT keypool_list_rights()',                 'operator operator_one plain postgres' ],
    [ q{SELECT keypool_grant('nobody', 'app')},       'postgres' ],
    [ q{SELECT keypool_revoke('nobody', 'app')},      'postgres' ],
    [ q{SELECT keypool_set_error_rule('*', 418, NULL, 'client')}, 'operator postgres' ],
    [ q{SELECT * FROM keypool_apply('{"providers": {"one": {"settings": {}}}}')}, 'operator postgres' ],
    [ 'SELECT keypool_export()', 'operator postgres' ],
    [ q{SELECT keypool_export('one')}, 'operator postgres' ],
    [ 'TABLE keypool.keyring',                        'monitor operator postgres' ],
    [ 'TABLE keypool.provider_keys',                  'postgres' ],
    [ 'TABLE keypool.quotas',                         'postgres' ],
    [ 'TABLE keypool.providers',                      'postgres' ],
    [ 'TABLE keypool.error_rules',                    'postgres' ],
    [ 'TABLE keypool.key_meters',                     'postgres' ],
    [ 'TABLE keypool.quota_meters',                   'postgres' ],
    [ 'TABLE keypool.key_state',                      'postgres' ],
    [ 'TABLE keypool.grants',                         'postgres' ],
    [ q{INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('one', 'sk')}, 'postgres' ],
    [ 'UPDATE keypool.provider_keys SET priority = 1', 'postgres' ],
    [ 'DELETE FROM keypool.provider_keys',            'postgres' ],
    [ 'TRUNCATE keypool.provider_keys',               'postgres' ],
    [ q{INSERT INTO keypool.quotas (provider_id, name) VALUES ('one', 'other')}, 'postgres' ],
    [ 'DELETE FROM keypool.quotas',                   'postgres' ],
    [ q{INSERT INTO keypool.providers (provider_id) VALUES ('one')}, 'postgres' ],
    [ 'DELETE FROM keypool.key_meters',               'postgres' ],
    [ 'DELETE FROM keypool.quota_meters',             'postgres' ],
    [ q{INSERT INTO keypool.key_state VALUES ('00000000-0000-8000-8000-000000000001', '1')}, 'postgres' ],
    [ 'DELETE FROM keypool.grants',                   'postgres' ],
    [ q{SELECT '2'::keypool.meter},                   'monitor monitor_one operator operator_one plain postgres' ],
);

# Tries a statement as a role in a transaction that is rolled back: 'ok', or the SQLSTATE.
sub outcome {
    my ($role, $statement) = @_;
    my (undef, undef, $error) = $node->psql('postgres', "\\set VERBOSITY sqlstate\nBEGIN; SET ROLE $role;\n$statement;\nROLLBACK;");
    return $error =~ /ERROR:\s+(\w+)/ ? $1 : 'ok';
}

# Checks a statement as all roles against the list of those that may.
sub check {
    my ($statement, $allowed) = @_;
    my %may = map { $_ => 1 } split / /, $allowed;
    my @wrong = map {
        my $got = outcome($_, $statement);
        my $expected = $may{$_} ? 'ok' : '42501';
        $got eq $expected ? () : "$_: $got, not $expected";
    } @roles;
    is_deeply(\@wrong, [], $statement);
    return;
}

my $lease = $node->safe_psql('postgres', q{SELECT lease FROM keypool_select('one')});
my $other_lease = $node->safe_psql('postgres', q{SELECT lease FROM keypool_select('two')});
for my $call (@calls) {
    my ($template, @allowed) = @$call;
    for my $provider ('one', 'two') {
        my $statement = $template;
        my $number = $provider eq 'one' ? $lease : $other_lease;
        $statement =~ s/%P/$provider/g;
        $statement =~ s/%K/$id{$provider}/g;
        $statement =~ s/%L/$number/g;
        check($statement, shift @allowed);
    }
}
check(@$_) for @others;

# Lists hold what the role may see.
sub listed { my ($role) = @_; return $node->safe_psql('postgres', "SET ROLE $role; SELECT string_agg(provider_id, ' ' ORDER BY 1) FROM keypool.keys"); }
is(listed('monitor'), 'one two', 'a monitor of all sees all');
is(listed('monitor_one'), 'one', 'a monitor of one provider sees that one');
sub listed_quotas { my ($role) = @_; return $node->safe_psql('postgres', "SET ROLE $role; SELECT string_agg(provider_id, ' ' ORDER BY 1) FROM keypool_list_quotas()"); }
is(listed_quotas('monitor'), 'one two', 'and the quotas of all');
is(listed_quotas('monitor_one'), 'one', 'or of that one');
sub listed_rights { my ($role) = @_; return $node->safe_psql('postgres', "SET ROLE $role; SELECT string_agg(DISTINCT coalesce(provider_id, 'all'), ' ' ORDER BY coalesce(provider_id, 'all')) FROM keypool_list_rights()"); }
is(listed_rights('operator_one'), 'all one', 'an operator of one provider sees who has rights on it');
is(listed_rights('plain'), '', 'and nobody else does');
is(listed('plain'), '', 'a role with EXECUTE but without a grant of keypool sees nothing');

# Rights end, and change, at once, also in a session that has the answer cached.
my $session = open_session($node);
$session->ask('SET ROLE member');
is($session->ask(q{SELECT key_value FROM keypool_select('one')}), 'sk-one', 'a member of a granted role is served');
$node->safe_psql('postgres', 'REVOKE app_one FROM member');
like($session->failure(q{SELECT key_value FROM keypool_select('one')}), qr/42501/, 'a member no more is not served');
$node->safe_psql('postgres', 'GRANT app_one TO member');
is($session->ask(q{SELECT key_value FROM keypool_select('one')}), 'sk-one', 'a member again is served');
$node->safe_psql('postgres', q{SELECT keypool_grant('app_one', 'app', 'two'), keypool_revoke('app_one', 'app', 'one')});
like($session->failure(q{SELECT key_value FROM keypool_select('one')}), qr/42501/, 'a revoked provider is closed');
is($session->ask(q{SELECT key_value FROM keypool_select('two')}), 'sk-two', 'a granted one is open');
$session->close;

# Grants survive a dump and a restore; so does what was revoked.
my $dump = $node->basedir . '/rights.sql';
$node->run_log([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ]);
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->safe_psql('restored', slurp_file($dump));
is($node->safe_psql('restored', q{SET ROLE app_one; SELECT key_value FROM keypool_select('two')}), 'sk-two', 'a restored grant works');
like(failure_of($node, q{SET ROLE app_one; SELECT key_value FROM keypool_select('one')}, 'restored'), qr/42501/,
    'and what was revoked is not restored');
is($node->safe_psql('restored', 'SELECT count(*) FROM keypool.grants'),
    $node->safe_psql('postgres', 'SELECT count(*) FROM keypool.grants'), 'all grants are restored');

# Rights on the tables and on the trigger functions, given past keypool, open nothing.
$node->safe_psql('postgres', q{
    CREATE ROLE intruder;
    GRANT USAGE ON SCHEMA keypool TO intruder;
    GRANT ALL ON ALL TABLES IN SCHEMA keypool TO intruder;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA keypool TO intruder;
    GRANT EXECUTE ON FUNCTION keypool_select TO intruder;
    CREATE SCHEMA lair AUTHORIZATION intruder;
    INSERT INTO keypool.provider_keys (provider_id, key_label, key_value) VALUES ('two', 'old', 'enc:' || repeat('A', 60));
});
like(failure_of($node, q{SET ROLE intruder; INSERT INTO keypool.grants VALUES ('intruder', 'app', NULL)}), qr/42501: only the owner/,
    'a right to write keypool.grants is no right to grant');
like(failure_of($node, q{SET ROLE intruder; UPDATE keypool.grants SET role = 'intruder', provider_id = NULL}), qr/42501: only the owner/,
    'nor one to change it');
like(failure_of($node, q{SET ROLE intruder; SELECT * FROM keypool_select('two')}), qr/42501/, 'EXECUTE opens nothing');
like(failure_of($node, q{SET ROLE intruder; INSERT INTO keypool.provider_keys (provider_id, key_value)
    SELECT 'mine', key_value FROM keypool.provider_keys WHERE key_label = 'old'}), qr/42501: only the owner/,
    'a secret of an older service, which is bound to no row, cannot be taken to another');
for my $trap (
    [ 'after_key_change',    'AFTER TRUNCATE',  'STATEMENT', 'TRUNCATE lair.own' ],
    [ 'before_key_change',   'BEFORE INSERT',   'ROW',       'INSERT INTO lair.own VALUES (1,2,3,4,5,6,7,8,9,10,11)' ],
    [ 'before_quota_change', 'BEFORE INSERT',   'ROW',       'INSERT INTO lair.own VALUES (1)' ],
    [ 'after_quota_change',  'AFTER TRUNCATE',  'STATEMENT', 'TRUNCATE lair.own' ],
    [ 'before_provider_change', 'BEFORE INSERT', 'ROW',      'INSERT INTO lair.own VALUES (1)' ],
    [ 'after_provider_change', 'AFTER TRUNCATE', 'STATEMENT', 'TRUNCATE lair.own' ],
    [ 'before_meter_change', 'BEFORE INSERT',   'ROW',       'INSERT INTO lair.own VALUES (1)' ],
    [ 'before_grant_change', 'BEFORE INSERT',   'ROW',       'INSERT INTO lair.own VALUES (1)' ],
    [ 'tell_sessions',       'AFTER INSERT',    'STATEMENT', 'INSERT INTO lair.own VALUES (1)' ],
) {
    my ($function, $event, $level, $fire) = @$trap;
    my $columns = join ', ', map { "c$_ bigint" } 1 .. 11;
    like(failure_of($node, "SET ROLE intruder; CREATE TABLE lair.own ($columns); CREATE TRIGGER t $event ON lair.own FOR EACH $level"
              . " EXECUTE FUNCTION keypool.$function(); $fire"), qr/39P01: keypool\.$function must be called by the trigger/,
        "$function works on no other table");
    $node->safe_psql('postgres', 'DROP TABLE lair.own');
}
like(failure_of($node, q{SET ROLE intruder; CREATE VIEW lair.own AS SELECT 1 AS a, 2 AS b; CREATE TRIGGER t INSTEAD OF INSERT ON lair.own FOR EACH ROW
    EXECUTE FUNCTION keypool.insert_key_state(); INSERT INTO lair.own VALUES (1, 2)}), qr/39P01: keypool\.insert_key_state must be called by the trigger/,
    'insert_key_state works on no other view');
$node->safe_psql('postgres', 'DROP VIEW lair.own');
is($node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM keypool.key_meters) > 0, (SELECT count(*) FROM keypool.quota_meters) > 0'), 't|t',
    'and the meters are still there');
$node->safe_psql('postgres', q{DROP OWNED BY intruder; DROP ROLE intruder; DELETE FROM keypool.provider_keys WHERE key_label = 'old'});

# A temporary table with the name of a type changes nothing, nor does a function of one of keypool's names.
$node->safe_psql('postgres', q{
    CREATE ROLE late;
    CREATE TEMPORARY TABLE text (a integer);
    CREATE TEMPORARY TABLE uuid (a integer);
    CREATE FUNCTION public.keypool_record(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
    SELECT keypool_grant('late', 'operator', 'one');
});
is(outcome('late', q{SELECT 1 FROM keypool_select('one')}), 'ok', 'a session with a table named text grants');
$node->safe_psql('postgres', q{CREATE TEMPORARY TABLE text (a integer); SELECT keypool_revoke('late', 'operator', 'one'); DROP FUNCTION keypool_record(integer)});
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_shdepend WHERE refobjid = 'late'::regrole}), 0, 'and revokes all of it');

# Privileges that a role passed on fall with its own, and with no others.
$node->safe_psql('postgres', q{
    CREATE ROLE friend;
    SELECT keypool_grant('late', 'app', 'one'), keypool_grant('late', 'monitor', 'two');
    GRANT EXECUTE ON FUNCTION keypool_select, keypool_peek TO late WITH GRANT OPTION;
    SET ROLE late;
    GRANT EXECUTE ON FUNCTION keypool_select, keypool_peek TO friend;
    RESET ROLE;
    SELECT keypool_revoke('late', 'app', 'one');
});
is($node->safe_psql('postgres', q{SELECT string_agg(role || ' ' || has_function_privilege(role, function::regproc, 'EXECUTE'), ', ' ORDER BY function, role)
    FROM unnest(ARRAY['friend', 'late']) role, unnest(ARRAY['keypool_peek', 'keypool_select']) function}),
    'friend true, late true, friend false, late false', 'what a role lost is lost to those it granted it to, and only that');
$node->safe_psql('postgres', q{SELECT keypool_revoke('late', 'monitor', 'two'); DROP ROLE friend});

# A role that was dropped leaves rows, which its number takes back.
my $number = $node->safe_psql('postgres', q{SELECT keypool_grant('late', 'app', 'one'); SELECT 'late'::regrole::oid; DROP OWNED BY late; DROP ROLE late});
$number =~ s/\s//g;
is($node->safe_psql('postgres', "SELECT role, rights, provider_id FROM keypool.grants WHERE role::oid = $number"), "$number|app|one", 'a dropped role leaves its rows');
is(failure_of($node, "SELECT keypool_revoke('$number', 'app', 'one')"), '', 'which are revoked by its number');
is($node->safe_psql('postgres', "SELECT count(*) FROM keypool.grants WHERE role::oid = $number"), 0, 'and gone');
like(failure_of($node, "SELECT keypool_grant('$number', 'app', 'one')"), qr/^ERROR:  42704: role does not exist/, 'nothing is granted to it');

# Bad arguments.
like(failure_of($node, q{SELECT keypool_grant('nobody', 'root')}), qr/^ERROR:  22023: rights must be/, 'unknown rights are refused');
like(failure_of($node, q{SELECT keypool_grant('missing', 'app')}), qr/^ERROR:  42704/, 'an unknown role is refused');
like(failure_of($node, q{SELECT keypool_grant(99999999::oid, 'app')}), qr/^ERROR:  42704: role does not exist/, 'a number that is no role is refused');
like(failure_of($node, q{SELECT keypool_grant(NULL, 'app')}), qr/^ERROR:  22004: role must not be null/, 'NULL is refused');
like(failure_of($node, q{SELECT keypool_grant('nobody', 'app', '')}), qr/^ERROR:  22023: provider must not be empty/, 'an empty provider is refused');
like(failure_of($node, q{SELECT keypool_revoke('nobody', 'operator')}), qr/^WARNING:.*no such grant/, 'revoking what was not granted is told');

$node->safe_psql('postgres', 'DROP DATABASE restored');
is(failure_of($node, q{SELECT keypool_revoke('monitor', 'monitor'); DROP ROLE monitor}), '', 'a role can be dropped when its grants are revoked');
$node->stop;
done_testing();
