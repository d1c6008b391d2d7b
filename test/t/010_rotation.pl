# 010_rotation.pl - the master key changes while the service runs; keys come from a file or from a command.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_cluster('rotation');
my $old  = (split /\n/, slurp_file(keyring_of($node)))[0];
my $new  = new_master_key('second');
$node->safe_psql('postgres', q{SELECT count(keypool_add_key('p', 'k' || i, 'sk-' || i)) FROM generate_series(1, 300) i});

sub view {
    return $node->safe_psql('postgres',
        'SELECT string_agg(master_key_id || CASE WHEN is_primary THEN \'*\' ELSE \'\' END || \' \' || status || \' \' || secrets, \', \') FROM keypool.keyring');
}
is(view(), 'primary* loaded 300', 'the view shows the master key and what it seals');
like($node->safe_psql('postgres', 'SELECT fingerprint FROM keypool.keyring'), qr/^[0-9a-f]{16}$/, 'and a fingerprint of it');
my $looker = open_session($node);
my $plans = $looker->failure(q{LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
    SET auto_explain.log_level = notice; SELECT count(*) FROM keypool_keyring()});
like($plans, qr/Query Text: SELECT count/, 'its plan is seen');
unlike($plans, qr/provider_keys/, 'and it counts without a query on each secret');
$looker->close;

# Eight sessions select all the while; each failure ends one, and is in the output.
my $script = $node->basedir . '/select.sql';
append_to_file($script, "SELECT key_value FROM keypool_select('p');\n");
my $load = IPC::Run::start([ load_command($node, '-c', 8, '-M', 'prepared', '-T', 8, '-f', $script) ], '>', \my $output, '2>', \my $errors);
sleep 1.5;
write_keyring(keyring_of($node), $new, $old);
sleep 1;
is($node->safe_psql('postgres', 'SELECT * FROM keypool_heal()'), '300|0', 'heal seals every secret under the new key');
is(view(), 'second* loaded 300, primary loaded 0', 'the old key seals nothing any more');
write_keyring(keyring_of($node), $new);
sleep 2;
is($node->safe_psql('postgres', 'SELECT * FROM keypool_heal()'), '0|0', 'a second run finds nothing to do');
ok($load->finish, 'pgbench ends well');
unlike("$output$errors", qr/ERROR|aborted/, 'no selection failed while the master key changed');
like($output, qr/number of transactions actually processed: [1-9]\d{2}/, 'and there were many');

# Batches: what is done stays done when the run is stopped.
my $third = new_master_key('third');
write_keyring(keyring_of($node), $third, $new);
my $victim = $node->safe_psql('postgres', q{SELECT id FROM keypool.provider_keys ORDER BY id OFFSET 250 LIMIT 1});
my $blocker = open_session($node);
$blocker->ask('BEGIN');
$blocker->ask("SELECT id FROM keypool.provider_keys WHERE id = '$victim' FOR UPDATE");
like(failure_of($node, "SET lock_timeout = '500ms'; CALL keypool_heal_in_batches(50)"), qr/55P03/, 'a run is stopped half way');
$blocker->ask('ROLLBACK');
$blocker->close;
like(view(), qr/^third\* loaded (250|200), second loaded (50|100)$/, 'the batches before are done');
my ($healed, $failed) = split /\|/, $node->safe_psql('postgres', 'CALL keypool_heal_in_batches(50)');
cmp_ok($healed, '<=', 100, 'started again, it goes on with the rest');
is(view(), 'third* loaded 300, second loaded 0', 'until all is done');
like(failure_of($node, 'CALL keypool_heal_in_batches(0)'), qr/^ERROR:  22023: batch_size must be positive/, 'a batch of none is refused');

# A missing key is shown, and named when no other key is left.
write_keyring(keyring_of($node), $old);
is(view(), 'primary* loaded 0, third missing 300', 'the view shows a missing master key');
my $stranger = failure_of($node, q{SET client_min_messages = error; SELECT * FROM keypool_select('p')});
like($stranger, qr/^ERROR:  KP401: master key "third" is not in the keyring/, 'the error names the missing master key');
$node->safe_psql('postgres', q{SELECT keypool_add_key('p', 'fresh', 'sk-fresh', 9)});
is($node->safe_psql('postgres', q{SET client_min_messages = error; SELECT key_value FROM keypool_select('p')}), 'sk-fresh',
    'a key under a master key that is there is served');

# The command.
write_keyring(keyring_of($node), $third, $old);
my $keyring = keyring_of($node);
sub set_command { my ($command) = @_; $node->append_conf('postgresql.conf', "keypool.master_key_command = '$command'\n"); $node->reload; return; }
sub select_one { return q{SET client_min_messages = error; SELECT status FROM keypool_try_select('p')}; }
my $session = open_session($node);
is($session->ask(select_one()), 'ok', 'a session has the keyring from the file');
set_command("cat $keyring");
is($node->safe_psql('postgres', select_one()), 'ok', 'a command prints the keyring');
set_command('exit 3');
like(failure_of($node, select_one()), qr/^ERROR:  KP401: the master key command failed: child process exited with exit code 3/,
    'a command that fails is told with its exit code');
is($session->ask(select_one()), 'ok', 'a session that has a keyring keeps it when the command fails');
set_command('true');
like(failure_of($node, select_one()), qr/^ERROR:  KP401: the keyring holds no master key/, 'a command that prints nothing is told');
set_command("cat $keyring; exit 1");
like(failure_of($node, select_one()), qr/^ERROR:  KP401: the master key command failed/, 'what a failed command printed does not count');
set_command('head -c 66000 /dev/zero');
like(failure_of($node, select_one()), qr/^ERROR:  KP401: the master key command prints more than/, 'a command that prints too much is told');
set_command("cat $keyring");
is($session->ask(select_one()), 'ok', 'and a mended one works, also in the old session');
$session->close;
unlike(slurp_file($node->logfile), qr/\Q@{[ (split m{:}, $third)[1] ]}\E/, 'no key material is in the log');

$node->stop;
done_testing();
