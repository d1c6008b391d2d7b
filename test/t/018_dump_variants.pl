# 018_dump_variants.pl - dumps of the schema alone, of other forms, and by roles that may not read keypool's tables.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The clock stands still, so that windows can be compared too.
my $node   = new_cluster('dumped', conf => "keypool.test_now = '2026-01-01 12:30:00+00'\ntimezone = 'UTC'\n");
my $folder = $node->basedir;
my @to     = ('-h', $node->host, '-p', $node->port);

$node->safe_psql('postgres', q{
    CREATE TABLE notes AS SELECT 'a row of somebody else' AS note;
    GRANT SELECT ON notes TO PUBLIC;
    CREATE ROLE nobody LOGIN; CREATE ROLE gateway LOGIN; CREATE ROLE watcher LOGIN; CREATE ROLE ops LOGIN;
    CREATE ROLE reader LOGIN IN ROLE pg_read_all_data;
    SELECT keypool_grant('gateway', 'app', 'pool'); SELECT keypool_grant('watcher', 'monitor'); SELECT keypool_grant('ops', 'operator');
    SELECT count(keypool_add_key('pool', 'key ' || i, 'sk-marker-' || i, max_rpm => 3)) FROM generate_series(1, 5) i;
    SELECT keypool_set_quota('pool', 'all', '{"max_rpm": 100, "models": ["*"], "max_tpd": 1000000}'), keypool_set_quota('pool', 'flight', '{"max_in_flight": 50}');
    SELECT keypool_set_provider('pool', '{"default_tokens": 2}'), keypool_set_error_rule('pool*', NULL, 'odd_*', 'client');
    SELECT keypool_record(key_id, 10, lease) FROM generate_series(1, 6) i, keypool_select('pool', i * 0, 'm');
    SELECT count(*) FROM generate_series(1, 2) i, keypool_select('pool', i * 0);
});

my $everything = q{
    SELECT * FROM keypool.provider_keys ORDER BY id;
    SELECT key_id, meter FROM keypool.key_meters ORDER BY key_id;
    SELECT * FROM keypool.quotas ORDER BY id;
    SELECT quota_id, meter FROM keypool.quota_meters ORDER BY quota_id;
    SELECT * FROM keypool.providers;
    SELECT * FROM keypool.error_rules;
    SELECT * FROM keypool.grants ORDER BY role::text, rights;};
my $before = $node->safe_psql('postgres', $everything);

sub database { my ($name) = @_; $node->safe_psql('postgres', "CREATE DATABASE $name TEMPLATE template0"); return $name; }
sub restore {
    my ($database, $file) = @_;
    return system_or_bail('psql', '-X', '-q', '-o', '/dev/null', @to, '-v', 'ON_ERROR_STOP=1', '-d', $database, '-f', $file);
}
sub dump_of { my ($name, @options) = @_; system_or_bail('pg_dump', @to, @options, '-f', "$folder/$name.sql", 'postgres'); return "$folder/$name.sql"; }

#
# The schema alone
#
my $schema = dump_of('schema', '--schema-only');
unlike(slurp_file($schema), qr/enc:|^COPY|^INSERT/m, 'a dump of the schema holds no key, no quota, no meter and no grant');
restore(database('schema_only'), $schema);
is($node->safe_psql('schema_only', $everything), '', 'restored, there is none');
my $as_gateway = q{SET ROLE gateway; SELECT key_value FROM keypool_select('pool')};
like(failure_of($node, $as_gateway, 'schema_only'), qr/^ERROR:  42501: permission denied for the keys of this provider$/m,
    'a role has EXECUTE from the dump, which opens nothing without its grant');
$node->safe_psql('schema_only', q{SELECT keypool_grant('gateway', 'app', 'pool'); SELECT keypool_add_key('pool', 'new', 'sk-new')});
is($node->safe_psql('schema_only', $as_gateway), 'sk-new', 'and it works when keys and grants are made anew');

#
# Other forms
#
my %form = (
    inserts     => [ 'as INSERTs',              '--inserts' ],
    columns     => [ 'as INSERTs with columns', '--column-inserts', '--rows-per-insert=2' ],
    nothing     => [ 'as INSERTs ON CONFLICT DO NOTHING', '--inserts', '--on-conflict-do-nothing' ],
    triggerless => [ 'as data alone, without triggers', '--data-only', '--disable-triggers' ],
);
my @different;
for my $name (sort keys %form) {
    my ($how, @options) = @{ $form{$name} };
    my $file = dump_of($name, @options);
    database($name);
    $node->safe_psql($name, 'CREATE EXTENSION keypool CASCADE; CREATE TABLE notes (note text)') if $name eq 'triggerless';
    restore($name, $file);
    my $after = $node->safe_psql($name, $everything);
    push @different, $how if $after ne $before;
    is($after, $before, "dumped $how, all is the same");
    is($node->safe_psql($name, q{SELECT status, key_value LIKE 'sk-marker-%' FROM keypool_try_select('pool')}), 'ok|t', 'and secrets open');
}

# Over the database itself, which drops the extension and makes it again.
my $open = open_session($node);
is($open->ask(q{SELECT status FROM keypool_try_select('pool')}), 'ok', 'a session has the pool in mind');
my $clean = dump_of('clean', '--clean', '--if-exists');
my $dumped = $node->safe_psql('postgres', $everything);
$node->safe_psql('postgres', q{SELECT keypool_delete_key(id) FROM keypool_list_keys('pool') LIMIT 3});
restore('postgres', $clean);
is($node->safe_psql('postgres', $everything), $dumped, 'dumped with --clean and restored over itself, all is the same');
is($open->ask(q{SELECT count(*) FILTER (WHERE status = 'ok') FROM generate_series(1, 20) i, keypool_try_select('pool', i * 0)}), '6',
    'and a session that was open serves what is left') or diag($open->messages);
$open->close;

#
# Roles. A dump reads keypool's tables themselves, which no right of keypool's opens.
#
for my $role ([ 'nobody', 'schema keypool' ], [ 'gateway', 'schema keypool' ], [ 'watcher', 'table error_rules' ], [ 'ops', 'table error_rules' ]) {
    my ($name, $what) = @$role;
    my @dump = ('pg_dump', @to, '-U', $name, '-f', "$folder/$name.sql", 'postgres');
    command_fails_like(\@dump, qr/ERROR:  permission denied for $what\n.*COPY/s, "a dump by $name fails, and says at what");
    unlike(slurp_file("$folder/$name.sql"), qr/enc:/, 'and holds no key');
    command_ok([ @dump, '--exclude-schema', 'keypool' ], 'without the schema keypool it succeeds');
    like(slurp_file("$folder/$name.sql"), qr/^CREATE EXTENSION IF NOT EXISTS keypool\b.*a row of somebody else/ms, 'with the extension, and all the rest');
    unlike(slurp_file("$folder/$name.sql"), qr/enc:/, 'and without keys');
    command_ok([ @dump, '--schema-only' ], 'and so does one of the schema');
}
restore(database('rest'), "$folder/nobody.sql");
is($node->safe_psql('rest', $everything), '', 'a dump of the schema by anybody can be restored');
my $read = dump_of('reader', '-U', 'reader');
like(slurp_file($read), qr/enc:v1:primary:/, 'a role that may read all data dumps the sealed keys');
is(join(' ', files_with('sk-marker', $folder)), '', 'no dump, log or data file holds a secret');

$node->stop;
experiment('variants of a dump', keys(%form) . ' forms', scalar(@different) . ' different after the restore');
done_testing();
