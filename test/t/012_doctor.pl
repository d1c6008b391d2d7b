# 012_doctor.pl - each check of keypool_doctor() is ok where all is well, and says what to do where it is not.

use strict;
use warnings FATAL => 'all';

use File::Spec;
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('doctor', init => { extra => ['--data-checksums'] },
    conf => "session_preload_libraries = 'keypool'\nfsync = on\nlisten_addresses = ''\n");
$node->safe_psql('postgres', q{SELECT keypool_add_key('p', 'a', 'sk-a')});

# What it says of a check, without line ends; or of all that are not ok.
sub said { my ($check) = @_; return said_after('', $check); }

# What it says of a check after a change, which is rolled back.
sub said_after {
    my ($change, $check) = @_;
    return $node->safe_psql('postgres', qq{BEGIN; $change; SELECT translate(result, E'\\n', ' ') FROM keypool_doctor() WHERE "check" = '$check'; ROLLBACK});
}

is($node->safe_psql('postgres', q{SELECT string_agg("check", ' ') FROM keypool_doctor() WHERE result <> 'ok' OR severity <> 'ok' OR NOT ok OR number <> 0}), '', 'all is well');

my %bad = (
    'statements hidden' => [ "session_preload_libraries = ''", "session_preload_libraries = 'keypool'", qr/^set session_preload_libraries/ ],
    log_statement       => [ 'log_statement = all', 'log_statement = none', qr/bind parameters or OpenPGP/ ],
    log_min_duration    => [ 'log_min_duration_statement = 0', 'log_min_duration_statement = -1', qr/bind parameters or OpenPGP/ ],
    log_parameters      => [ 'log_parameter_max_length_on_error = -1', 'log_parameter_max_length_on_error = 0', qr/set log_parameter_max_length_on_error = 0$/ ],
    auto_explain        => [ 'auto_explain.log_min_duration = 0', 'auto_explain.log_min_duration = -1', qr/bind parameters or OpenPGP/ ],
    pgaudit             => [ "pgaudit.log = 'write'", "pgaudit.log = 'none'", qr/give secrets to these, not to functions/ ],
    debug_print         => [ 'debug_print_plan = on', 'debug_print_plan = off', qr/debug_print_plan off$/ ],
    fsync               => [ 'fsync = off', 'fsync = on', qr/^is off: .* set it on$/ ],
    full_page_writes    => [ 'full_page_writes = off', 'full_page_writes = on', qr/^is off: .* set it on$/ ],
    keyring             => [ "keypool.master_key_file = '/nowhere'", "keypool.master_key_file = '" . keyring_of($node) . "'", qr/^the keyring cannot be read: No such file/ ],
);
for my $check (sort keys %bad) {
    my ($worse, $better, $advice) = @{ $bad{$check} };
    $node->append_conf('postgresql.conf', "$worse\n");
    $node->reload;
    like(said($check), $advice, "$check: says what to do");
    my $widest = $node->safe_psql('postgres', '\pset format aligned' . "\nSELECT * FROM keypool.doctor");
    is(scalar(grep { length > 80 } split /\n/, $widest), 0, 'and can be read at 80 columns');
    $node->append_conf('postgresql.conf', "$better\n");
    $node->reload;
    is(said($check), 'ok', 'and is content when it is done');
}

# A library that is loaded after keypool sees entries first.
my $library = File::Spec->rel2abs($node->basedir) . '/hook';
append_to_file("$library.c", q{
#include "postgres.h"
#include "fmgr.h"
PG_MODULE_MAGIC;
void _PG_init(void);
static void see(ErrorData *entry) { (void) entry; }
void _PG_init(void) { emit_log_hook = see; }
});
chomp(my $headers = `pg_config --includedir-server`);
system_or_bail('cc', '-shared', '-fPIC', '-w', "-I$headers", '-o', "$library.so", "$library.c");
like($node->safe_psql('postgres', qq{LOAD '$library.so'; SELECT translate(result, E'\\n', ' ') FROM keypool_doctor() WHERE "check" = 'log hook'}),
    qr/^another library sees entries .* load it before keypool$/, 'a library that sees entries of the log before keypool is told');
is(said('log hook'), 'ok', 'and where there is none, all is well');

# The cache: a provider that does not fit is read again after each use of another, and fits with what the doctor names.
{
    $node->safe_psql('postgres', q{SELECT count(keypool_add_key('large', repeat('x', i % 50), 'sk-' || i)) FROM generate_series(1, 3000) i;
        SELECT keypool_add_key('small', 'a', 'sk-a')});
    my $session = open_session($node);
    my $use  = q{SELECT FROM keypool_peek('large') a, keypool_peek('small') b;};
    my $read = q{SELECT coalesce(seq_tup_read + idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relid = 'keypool.provider_keys'::regclass;};
    my $told = q{SELECT translate(result, E'\n', ' ') FROM keypool_doctor() WHERE "check" = 'cache'};
    my $rows_read = sub {
        my ($before, $after) = grep { /\d/ } split /\n/, $session->ask("BEGIN; $use $read $use $use $use $read COMMIT");
        return $after - $before;
    };
    is($session->ask($told), 'ok', 'cache: a provider of 3000 keys fits the default');
    $session->ask(q{SET keypool.cache_size = '300kB'});
    cmp_ok($rows_read->(), '>=', 9000, 'one that does not fit is read again after each use of another');
    my $advice = $session->ask($told);
    like($advice, qr/^too large .*: 1 of the providers, with up to 3000 keys; set keypool\.cache_size = '\d+kB'$/, '... which the doctor tells');
    my ($enough) = $advice =~ /'(\d+kB)'/;
    $session->ask("SET keypool.cache_size = '$enough'");
    is($rows_read->(), 0, 'with the size that it names it is not');
    is($session->ask($told), 'ok', '... and the doctor is content');
    $session->close;
    $node->safe_psql('postgres', q{DELETE FROM keypool.provider_keys WHERE provider_id IN ('large', 'small')});
}

# Secrets: one that does not open, one in the old form, one in plaintext that came in beside the triggers.
$node->safe_psql('postgres', q{
    INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('p', 'enc:' || repeat('A', 60));
    ALTER TABLE keypool.provider_keys DISABLE TRIGGER before_key_change;
    INSERT INTO keypool.provider_keys (id, provider_id, key_value) VALUES (gen_random_uuid(), 'p', 'sk-plain');
    ALTER TABLE keypool.provider_keys ENABLE ALWAYS TRIGGER before_key_change;
});
my $broken = $node->safe_psql('postgres', q{SELECT id FROM keypool.provider_keys WHERE key_value LIKE 'enc:AAAA%'});
like(said('secrets open'), qr/^1 do not; see keypool.keyring .*: \Q$broken\E$/, 'a secret that does not open is counted and named');
like(said('secrets sealed'), qr/^1 in the old form, 1 in plaintext: run SELECT \* FROM keypool_heal\(\)$/, 'and those that are not sealed');
$node->safe_psql('postgres', q{DELETE FROM keypool.provider_keys WHERE key_value LIKE 'enc:AAAA%'; SELECT keypool_heal()});
is(said('secrets open') . said('secrets sealed'), 'okok', 'healed, all is well again');

# While the keyring is not usable, nothing is said against the secrets that it would open.
chmod 0644, keyring_of($node);
like(said('keyring'), qr/^the keyring has group or world access/, 'a keyring that others may read is told');
is(said('secrets open'), '2 do not, and the keyring is not usable: see the row "keyring" first', 'and the secrets point to it');
chmod 0600, keyring_of($node);
is(said('keyring') . said('secrets open'), 'okok', 'mended, all is well again');

# The tables: triggers as a restore with --disable-triggers leaves them, and rights that were given past keypool.
for my $trigger (split /\n/, $node->safe_psql('postgres', q{SELECT tgname, tgrelid::regclass FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE NOT tgisinternal AND relnamespace = 'keypool'::regnamespace AND relkind = 'r' ORDER BY 2, 1})) {
    my ($name, $table) = split /\|/, $trigger;
    like(said_after("ALTER TABLE $table DISABLE TRIGGER $name", 'triggers'), qr/ENABLE ALWAYS TRIGGER$/, "$name of $table: that it is off is told");
    like(said_after("ALTER TABLE $table ENABLE TRIGGER $name",  'triggers'), qr/ENABLE ALWAYS TRIGGER$/, '... and that replication would skip it');
    like(said_after("DROP TRIGGER $name ON $table",             'triggers'), qr/was dropped/,            '... and that it was dropped');
}
$node->safe_psql('postgres', q{CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER own AFTER INSERT ON keypool.quotas FOR EACH ROW EXECUTE FUNCTION own()});
is(said('triggers'), 'ok', "others' triggers are theirs");
for my $table (qw(provider_keys quotas providers error_rules key_meters quota_meters key_state wakeups refusals event_log)) {
    $node->safe_psql('postgres', "GRANT SELECT ON keypool.$table TO pg_monitor");
    like(said('tables closed'), qr/revoke them, and use keypool_grant/, "a right on $table is told");
    $node->safe_psql('postgres', "REVOKE SELECT ON keypool.$table FROM pg_monitor");
}
for my $column (qw(key_value expires_at ctid)) {
    like(said_after("GRANT SELECT ($column) ON keypool.provider_keys TO pg_monitor", 'tables closed'), qr/revoke them/, "a right on the column $column is told");
}
is(said('triggers') . said('tables closed'), 'okok', 'undone, all is well again');

# A key and a quota without a meter, as replication leaves it where triggers do not fire for it.
$node->safe_psql('postgres', q{INSERT INTO keypool.quotas (provider_id, name) VALUES ('p', 'q'); DELETE FROM keypool.quota_meters;
    DELETE FROM keypool.key_meters WHERE key_id = (SELECT min(id::text)::uuid FROM keypool.provider_keys)});
is(said('meters'), 'keys and quotas that have no meter and are not used: 2; run SELECT * FROM keypool_heal()', 'a key and a quota without a meter are told');
$node->safe_psql('postgres', 'SELECT keypool_heal()');
is(said('meters'), 'ok', 'healed, all is well again');

# A key that is about to expire.
$node->safe_psql('postgres', q{UPDATE keypool.provider_keys SET expires_at = now() + interval '8 days'});
is(said('expiry'), 'ok', 'a key that expires in eight days is not told');
$node->safe_psql('postgres', q{UPDATE keypool.provider_keys SET expires_at = now() + interval '6 days'});
like(said('expiry'), qr/^keys that have expired or will within 7 days: 2; /, 'one that expires in six days is');
$node->safe_psql('postgres', q{UPDATE keypool.provider_keys SET expires_at = NULL});

# Names of accounts that do not meet, and how bad each finding is.
$node->safe_psql('postgres', q{SELECT keypool_add_key('named', 'a', 'sk-named'), keypool_set_quota('named', 'app', '{"account": "org/app", "max_rpm": 5}')});
like(said('unused quotas'), qr/^quotas that no key draws on: 1; /, 'a quota that no key draws on is told');
$node->safe_psql('postgres', q{UPDATE keypool.provider_keys SET account = 'org/apps' WHERE provider_id = 'named'});
like(said('unused quotas'), qr/^quotas that no key draws on: 1; /, 'also where the name of an account begins like its own');
like(said('accounts'), qr/^accounts of keys that no quota is for: 1; /, 'and the account of these keys');
is($node->safe_psql('postgres', q{SELECT ok, severity, number FROM keypool_doctor() WHERE "check" IN ('accounts', 'unused quotas')}), "f|warning|1\nf|warning|1", 'as warnings, with their number');
$node->safe_psql('postgres', q{UPDATE keypool.provider_keys SET account = 'org/app/x' WHERE provider_id = 'named'});
is(said('unused quotas') . said('accounts'), 'okok', 'where they meet, all is well');
$node->safe_psql('postgres', q{DELETE FROM keypool.provider_keys WHERE provider_id = 'named'; DELETE FROM keypool.quotas WHERE provider_id = 'named'});

# Calls that name no model, where a quota is for some.
is(said('models'), 'ok', 'where models are not told apart, to name none is all right');
$node->safe_psql('postgres', q{SELECT keypool_set_quota('p', 'large', '{"models": ["gpt-*"]}'); SELECT status FROM keypool_try_select('p', model => 'gpt-4o')});
is(said('models'), 'ok', 'a call that names its model is all right');
my $nameless = $node->safe_psql('postgres', q{SELECT key_id FROM keypool_select('p')});
like(said('models'), qr/for which calls of the last day named no model, .*: 1; /, 'one that names none is told');
my $later = q{SELECT set_config('keypool.test_now', (now() + interval '25 hours')::text, false) IS NOT NULL;};
is($node->safe_psql('postgres', qq{$later SELECT result FROM keypool_doctor() WHERE "check" = 'models'}), "t\nok", 'and no longer a day later');
is($node->safe_psql('postgres', qq{$later SELECT keypool_record('$nameless', 1); SELECT result <> 'ok' FROM keypool_doctor() WHERE "check" = 'models'}),
    "t\nt\nt", 'a settlement without lease and model is told likewise');
$node->safe_psql('postgres', q{DELETE FROM keypool.quotas WHERE name = 'large'});

# A key that rests.
my ($resting, $its_lease) = split /\|/, $node->safe_psql('postgres', q{SELECT key_id, lease FROM keypool_select('p')});
$node->safe_psql('postgres', "SELECT keypool_report('$resting', '$its_lease', 401)");
like(said('breakers'), qr/^keys and quotas that rest after failures: 1; /, 'a key that rests is told');
is($node->safe_psql('postgres', "SELECT breaker, breaker_until > now() + interval '9 minutes', breaker_reason FROM keypool.keys WHERE id = '$resting'"), 'open|t|auth', 'and shown');
$node->safe_psql('postgres', "SELECT keypool_clear_cooldown('$resting')");
is(said('breakers'), 'ok', 'until it serves again');

# A clock that was wrong once, until the key is used again.
$node->safe_psql('postgres', "SET keypool.test_now = '2090-01-01'; SELECT keypool_record('$nameless')");
like(said('clock'), qr/^counters that are more than 10 minutes ahead of the server's clock, .*: 2; /, 'a clock that was wrong is told, by key and quota');
$node->safe_psql('postgres', "SELECT keypool_record('$nameless')");
is(said('clock'), 'ok', 'what was counted then is moved to now by the next use');
$node->safe_psql('postgres', q{DELETE FROM keypool.quotas});

# TCP without TLS, where it leaves the machine.
for my $listening ([ '127.0.0.1', 'ok' ], [ 'localhost , 127.0.0.2', 'ok' ], [ '0.0.0.0', 'told' ], [ '127.0.0.1, 0.0.0.0', 'told' ], [ '*', 'told' ]) {
    my ($addresses, $expected) = @$listening;
    $node->append_conf('postgresql.conf', "listen_addresses = '$addresses'\n");
    $node->restart;
    like(said('TLS'), $expected eq 'ok' ? qr/^ok$/ : qr/^the server listens on TCP without TLS/, "listening on $addresses: $expected");
}

# Tools that rebuild tables from what triggers or logical decoding saw. What keypool changes in place they do not see.
SKIP: {
    skip 'pg_repack is not installed', 2
        unless $node->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_repack'});
    $node->safe_psql('postgres', 'CREATE EXTENSION pg_repack');
    like(said('online rebuilds'), qr/^pg_repack is installed: .*--exclude-extension keypool$/, 'pg_repack is told');
    $node->safe_psql('postgres', 'DROP EXTENSION pg_repack');
    is(said('online rebuilds'), 'ok', 'and its absence is well');
}
$node->stop;

# Up to PostgreSQL 17 a cluster is made without checksums; later ones must be told.
my $plain = new_cluster('without_checksums');
$plain->stop;
$plain->run_log([ 'pg_checksums', '--disable', '-D', $plain->data_dir ]);
$plain->start;
like($plain->safe_psql('postgres', q{SELECT result FROM keypool_doctor() WHERE "check" = 'checksums'}), qr/pg_checksums --enable/,
    'a cluster without checksums is told');
like($plain->safe_psql('postgres', q{SELECT result FROM keypool_doctor() WHERE "check" = 'pg_rewind'}), qr/wal_log_hints/,
    'and that pg_rewind needs these or wal_log_hints');
$plain->append_conf('postgresql.conf', "wal_log_hints = on\n");
$plain->restart;
is($plain->safe_psql('postgres', q{SELECT result FROM keypool_doctor() WHERE "check" = 'pg_rewind'}), 'ok', 'which will do');
$plain->stop;
done_testing();
