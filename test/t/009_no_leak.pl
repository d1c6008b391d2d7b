# 009_no_leak.pl - secrets are driven down every path, with all of the server's logging on, and are found nowhere afterwards.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use KeypoolCluster;
use MIME::Base64 qw(decode_base64);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_cluster('leak', stopped => 1, init => { allows_streaming => 1 }, conf => q{
shared_preload_libraries = 'pg_stat_statements, auto_explain'
session_preload_libraries = 'keypool'
restart_after_crash = on
log_statement = all
log_duration = on
log_min_duration_statement = 0
log_min_messages = debug1
log_min_error_statement = debug5
log_error_verbosity = verbose
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
log_temp_files = 0
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
auto_explain.log_verbose = on
pg_stat_statements.track = all
track_activity_query_size = 16384
work_mem = 64kB
wal_level = logical
max_wal_size = 1GB
wal_keep_size = 512MB
});

# A server that may leave a core file; the limit is inherited.
my $core_pattern = slurp_file('/proc/sys/kernel/core_pattern');
system_or_bail('sh', '-c', 'ulimit -c unlimited; exec "$@"', 'sh', 'pg_ctl', '-c', '-w', '-D', $node->data_dir, '-l', $node->logfile,
    '-o', '--cluster-name=leak', 'start');
$node->_update_pid(1);
$node->safe_psql('postgres', 'CREATE EXTENSION pg_stat_statements; CREATE EXTENSION keypool CASCADE');

my $other = open_session($node);    # looks on while the others work
my @seen;                           # what it saw
sub look_on { push @seen, $other->ask('SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid()'); return; }

# Runs statements in a session of their own that stays open while another looks on; errors are part of it.
sub drive {
    my (@statements) = @_;
    my $session = open_session($node);
    for my $statement (@statements) { $session->ask($statement); look_on(); }
    return $session;
}

# Literals, in every way that SQL offers.
my @sessions = (
    drive(q{SELECT keypool_add_key('p', 'simple', 'sk-marker-simple')},
        q{SELECT * FROM keypool_select('p', 5)}, q{SELECT * FROM keypool_list_keys()}, q{SELECT * FROM keypool_heal()}),
    drive(q{INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('p', 'sk-marker-insert')}),
    drive(q{UPDATE keypool.provider_keys SET key_value = 'sk-marker-update' WHERE key_label = 'simple'}),
    drive(q{SELECT keypool_set_secret(keypool_key('p', 'simple'), 'sk-marker-set')},
        q{SELECT * FROM keypool_select_many('p', 2, 5, 'm')}, q{SELECT * FROM keypool_explain_select('p')}),
    drive(q{SELECT keypool_add_key('p', 'settings', 'sk-marker-settings', settings => '{"account": "org", "attributes": {"region": "eu"}}')}),
    drive(q{PREPARE add AS SELECT keypool_add_key('p', 'prepared', $1)}, q{EXECUTE add('sk-marker-execute')}),
    drive(q{DO $$ BEGIN PERFORM keypool_add_key('p', 'do', 'sk-marker-do'); END $$}),
    drive(q{CREATE FUNCTION add_one(secret text) RETURNS uuid LANGUAGE plpgsql AS 'BEGIN RETURN keypool_add_key(''p'', ''plpgsql'', secret); END'},
        q{SELECT add_one('sk-marker-plpgsql') AS keypool_add_key}),
);

# Everything that fails with a secret in its hands.
drive(
    q{SELECT keypool_add_key('p', 'a', 'sk-marker-negative', max_rpm => -1)},
    q{SELECT keypool_add_key('', 'a', 'sk-marker-provider')},
    q{SELECT keypool_add_key('p', 'a', 'sk-marker-unknown', settings => '{"max_rmp": 1}')},
    q{SELECT keypool_add_key('p', 'a', 'sk-marker-json', settings => '[1')},
    q{SELECT keypool_set_secret('00000000-0000-8000-8000-00000000ffff', 'sk-marker-nobody')},
    q{SELECT keypool_set_secret(keypool_key('p', 'simple'), 'Bearer sk-marker-bearer')},
    q{SELECT keypool_add_key('p', 'a', repeat('sk-marker-long', 1000))},
    q{SELECT keypool_add_key('p', 'a', 'enc:sk-marker-claims')},
    q{SELECT keypool_add_key('p', 'a', '-----BEGIN PGP MESSAGE-----sk-marker-pgp')},
    q{INSERT INTO keypool.provider_keys (provider_id, key_value, max_rpm) VALUES ('p', 'sk-marker-check', -1)},
    q{INSERT INTO keypool.provider_keys (provider_id, key_value, priority) VALUES ('p', 'sk-marker-null', NULL)},
    q{INSERT INTO keypool.provider_keys (id, provider_id, key_value) SELECT id, 'p', 'sk-marker-twice' FROM keypool_list_keys('p') LIMIT 1},
    q{SET statement_timeout = 100},
    q{SELECT keypool_add_key('p', 'a', 'sk-marker-timeout'), pg_sleep(10)},
    q{BEGIN}, q{SELECT keypool_add_key('p', 'a', 'sk-marker-rollback')}, q{ROLLBACK},
    q{RESET statement_timeout},
    q{SELECT * FROM keypool_select('p', -1)}, q{SELECT * FROM keypool_select('nobody')},
    q{SELECT keypool_record('00000000-0000-8000-8000-00000000ffff')},
    q{DO $$ BEGIN PERFORM keypool_add_key('p', 'a', 'sk-marker-query', nosuch); END $$},
    q{DO $$ BEGIN EXECUTE format('SELECT keypool_add_key(%L, %L, %L, 1/0)', 'p', 'a', 'sk-marker-format'); END $$},
    q{DO $$ DECLARE s text; BEGIN s := 'sk-marker-expression' || nosuch; PERFORM keypool_add_key('p', 'a', s); END $$},
    q{SELECT keypool_add_key('p', 'a', 'sk-marker-type', 'high')},
    q{SELECT keypool_add_key('p', 'a', 'sk-marker-dollar'), $$sk-marker-dollar's$$, E'sk-marker-escape\'s'},
)->close;

# Those that seal nothing, in sessions that stay open: what the last of them was goes on being shown.
push @sessions, map { drive($_) }
  q{INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES (NULL, 'sk-marker-provider')},
  q{UPDATE keypool.provider_keys SET key_value = 'sk-marker-nomatch' WHERE key_label = 'nobody'},
  q{SET ROLE pg_monitor; INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('p', 'sk-marker-denied')},
  q{INSERT INTO keypool.provider_keys (provider_id, key_label, key_value) VALUES ('p', 'claims', 'enc:sk-marker-claimed')},
  q{SET auto_explain.log_level = warning; SELECT keypool_add_key('p', 'warned', 'sk-marker-warning')};

# A deadlock, which shows the statement of the other session.
{
    my ($one, $two) = map { open_session($node) } 1, 2;
    $_->ask(q{SET deadlock_timeout = '1h'}) for $one, $two;
    $one->ask('CREATE TABLE other (id integer); BEGIN; LOCK TABLE other');
    $two->ask('BEGIN; LOCK TABLE keypool.provider_keys IN SHARE MODE');
    $one->{psql}->query_until(qr/waiting/, qq{\\echo waiting
INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('p', 'sk-marker-deadlock');
});
    $node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_locks WHERE NOT granted});
    $two->ask(q{SET deadlock_timeout = '10ms'});
    like($two->failure('LOCK TABLE other'), qr/40P01/, 'there is a deadlock');
    $_->ask('ROLLBACK') for $two, $one;
}

# COPY: one that works, one that breaks a constraint, one with a value that cannot be cast.
for my $line ("sk-marker-copy\t1", "sk-marker-copied\t-1", "sk-marker-cast\tnumber") {
    $node->psql('postgres', "COPY keypool.provider_keys (provider_id, key_value, max_rpm) FROM stdin;\np\t$line\n\\.\n");
    look_on();
}

# Bind parameters of the extended protocol, by a real client: successful, and failing.
my $script = $node->basedir . '/bind.sql';
append_to_file($script, qq{\\set label random(1, 9)\nSELECT keypool_add_key('bound', :label::text, 'sk-marker-bound-' || :label);\n});
$node->run_log([ load_command($node, '-M', 'extended', '-t', 3, '-f', $script) ]);
my $client = q{
import os, psycopg2
connection = psycopg2.connect(host=os.environ["PGHOST"], port=os.environ["PGPORT"], dbname="postgres")
connection.autocommit = True
cursor = connection.cursor()
cursor.execute("SELECT keypool_add_key(%s, %s, %s)", ("p", "python", "sk-marker-python"))
cursor.execute("SELECT keypool_set_secret(keypool_key(%s, %s), %s)", ("p", "python", "sk-marker-reset"))
try:
    cursor.execute("SELECT keypool_add_key(%s, %s, %s, max_rpm => %s)", ("p", "python", "sk-marker-python", -1))
except psycopg2.Error as error:
    assert "marker" not in error.diag.message_primary, error
};
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
system_or_bail('/usr/bin/python3', '-c', $client);

$other->ask(q{/* provider_keys */ SELECT 42 AS deed, 'constant'});

# A session that had many secrets in its hands, but was given none: what a core file of it holds.
my $worker = open_session($node);
$worker->ask('SELECT keypool_heal()');
$worker->ask(q{SELECT status FROM keypool_peek('p')});
$worker->ask('SELECT count(*) FROM keypool_list_keys()');
$worker->ask('SELECT count(*) FROM keypool_doctor()');
$worker->ask(q{SELECT keypool_record(id) FROM keypool_list_keys('p')});
$worker->ask(q{SELECT count(*) FROM keypool.keyring});
my $pid = $worker->ask('SELECT pg_backend_pid()');
my $statistics = join "\n", @seen, map { $other->ask("SELECT * FROM $_") // '' }
  # pg_stat_statements keeps the text of utility statements as it is, and offers no way to hide it: documented.
  "pg_stat_statements WHERE query NOT LIKE 'DO %'", qw(pg_stat_activity pg_prepared_statements pg_cursors pg_stats keypool.keys keypool.keyring keypool.key_usage_window);
my $given = $other->ask(q{SELECT count(*) FROM keypool_list_keys()});
cmp_ok($given, '>=', 10, 'secrets were stored on many paths');
my $dump = $node->basedir . '/leak.dump';
system_or_bail('pg_dump', '-f', $dump, $node->connstr('postgres'));
$node->safe_psql('postgres', 'CHECKPOINT');
kill 'ABRT', $pid;
my $core;
for (1 .. 300) {
    ($core) = glob($node->data_dir . '/core*');
    last if defined $core && -s $core;
    usleep(100_000);
}
$node->stop('immediate');

sub markers_in { my ($text) = @_; my %found = map { $_ => 1 } $text =~ /sk-marker[a-z_-]*/g; return join ' ', sort keys %found; }
sub markers_below { my ($folder) = @_; return join ' ', files_with('sk-marker', $folder); }

# What a master key can be told from: its text in the keyring, and either half of its bytes.
sub pieces_of_master_keys {
    my @texts = map { s/^.*?://r } split /\n/, slurp_file(keyring_of($node));
    return map { my $bytes = decode_base64($_); ($_, substr($_, 0, 20), substr($bytes, 0, 16), substr($bytes, 16)) } @texts;
}

is(markers_in($statistics), '', 'no secret is in a statistics view, or was in pg_stat_activity');
my $log = slurp_file($node->logfile);
is(markers_in($log), '', 'no secret is in the log, with all of it on');
like($log, qr/detected.*Process \d+: INSERT INTO keypool\.provider_keys .*'\*\*\*'/s, 'not even the other statement of a deadlock');
like($log, qr{/\* provider_keys \*/ SELECT 42 AS deed, '\*\*\*'}, 'but what a statement does can be read there, whatever it names');
is(markers_in(slurp_file($dump)), '', 'no secret is in a dump');
is(markers_below($node->data_dir . "/$_"), '', "no secret is in $_") for qw(base pg_wal global);
SKIP: {
    skip 'core files go elsewhere here', 3 if $core_pattern =~ /^[|\/]/;
    ok(defined $core && -s $core, 'the aborted session left a core file');
    my $content = defined $core ? slurp_file($core) : 'sk-marker-no-core';
    is(markers_in($content), '', 'and no secret is in it');
    is(scalar(grep { index($content, $_) >= 0 } pieces_of_master_keys()), 0, 'nor a master key, which it had loaded and used');
}
done_testing();
