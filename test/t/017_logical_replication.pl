# 017_logical_replication.pl - keys that are replicated to another server arrive sealed, and are counted there for themselves.

use strict;
use warnings FATAL => 'all';

use File::Spec;
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Two servers with the same keyring, each in a file of its own.
my $publisher  = new_cluster('publisher', init => { allows_streaming => 'logical' });
my $subscriber = new_cluster('subscriber', init => { allows_streaming => 'logical' }, stopped => 1);
my @keyring    = split /\n/, slurp_file(keyring_of($publisher));
write_keyring(keyring_of($subscriber), @keyring);
$subscriber->start;
$subscriber->safe_psql('postgres', 'CREATE EXTENSION keypool CASCADE');

sub published { my ($sql, $in) = @_; return $publisher->safe_psql($in // 'postgres', $sql); }
sub subscribed { my ($sql, $in) = @_; return $subscriber->safe_psql($in // 'postgres', $sql); }

# Subscribes a database of the one to that of the other, and waits for the rows that are there.
sub subscribe {
    my ($name, $tables, $in, $options) = @_;
    my $from = $publisher->connstr . ' dbname=' . ($in // 'postgres');
    published("CREATE PUBLICATION $name FOR $tables", $in);
    subscribed("CREATE SUBSCRIPTION $name CONNECTION '$from' PUBLICATION $name" . ($options // ''), $in);
    $subscriber->wait_for_subscription_sync($publisher, $name, $in // 'postgres');
    return;
}

# Waits until what was published is there.
sub arrived { my ($name) = @_; $publisher->wait_for_catchup($name // 'keys'); return; }

#
# Keys
#
my $first = published(q{SELECT keypool_add_key('pool', 'first', 'sk-first', 1, max_rpm => 5)});
published("SELECT keypool_record('$first', 10) FROM generate_series(1, 5)");
published("SELECT keypool_mark_429('$first', 3600)");
subscribe('keys', 'TABLE keypool.provider_keys');

my $configuration = 'SELECT * FROM keypool.provider_keys ORDER BY id';
is(subscribed($configuration), published($configuration), 'keys that were there arrive as they are');
like(subscribed('SELECT key_value FROM keypool.provider_keys'), qr/^enc:v1:primary:/, 'sealed');

my $select = q{SELECT key_label, key_value, status FROM keypool_try_select('pool')};
my $totals = q{SELECT key_label, total_requests, total_tokens FROM keypool_list_keys('pool') ORDER BY key_label};
my $open   = open_session($subscriber);
is($open->ask($select), 'first|sk-first|ok', 'a key that is full and cooling on the publisher is free on the subscriber');
is($open->ask($totals), 'first|0|0', 'where nothing is recorded of it');
subscribed("SELECT keypool_record('$first', 7) FROM generate_series(1, 2)");
is($open->ask($totals) . ' ' . published($totals), 'first|2|14 first|5|50', 'each server counts for itself');

my $second = published(q{SELECT keypool_add_key('pool', 'second', 'sk-second', 0)});
arrived();
is($open->ask($select), 'second|sk-second|ok', 'a key that is added arrives, also in a session that was open');
published("SELECT keypool_toggle_key('$second', false)");
arrived();
is($open->ask($select), 'first|sk-first|ok', 'one that is switched off, too');
published("UPDATE keypool.provider_keys SET max_rpm = 1 WHERE id = '$first'");
arrived();
is($open->ask($select), '||limited', 'and a limit');
published("UPDATE keypool.provider_keys SET max_rpm = NULL, key_value = 'sk-changed' WHERE id = '$first'");
arrived();
is($open->ask($select), 'first|sk-changed|ok', 'and a secret');
is($open->ask($totals), "first|2|14\nsecond|0|0", 'a change of a key leaves what is recorded of it');

# A secret so long that PostgreSQL keeps it apart, and does not send it along with a change of something else.
my $long = published(q{SELECT keypool_add_key('long', 'long', repeat('0123456789', 800))});
published("SELECT keypool_toggle_key('$long', false); SELECT keypool_toggle_key('$long', true)");
arrived();
is(subscribed(q{SELECT key_value = repeat('0123456789', 800) FROM keypool_select('long')}), 't', 'a long secret stays through changes that do not send it');

subscribed("SELECT keypool_toggle_key('$second', true)");
is($open->ask($select), 'second|sk-second|ok', 'a key may be changed on the subscriber');
published("UPDATE keypool.provider_keys SET key_label = 'again' WHERE id = '$second'");
arrived();
is($open->ask($select), 'first|sk-changed|ok', 'until the publisher changes it');

published("SELECT keypool_delete_key('$first')");
arrived();
is(subscribed(q{SELECT string_agg(key_label, ' ' ORDER BY key_label), (SELECT count(*) FROM keypool.key_meters) FROM keypool.provider_keys}),
    'again long|2', 'a key that is deleted goes, with its meter');
is($open->ask(q{SELECT status FROM keypool_try_select('pool')}), 'no_key', 'also from a session that was open');

# A new master key: the publisher seals under it, the subscriber does not have it yet.
my @new_keyring = (new_master_key('next'), @keyring);
write_keyring(keyring_of($publisher), @new_keyring);
is(published('SELECT * FROM keypool_heal()'), '2|0', 'the master key is changed on the publisher');
arrived();
my $select_long = q{SELECT key_label FROM keypool_select('long')};
like($open->failure($select_long), qr/^ERROR:  KP401: /m, 'a secret under a master key that the subscriber lacks is refused there');
write_keyring(keyring_of($subscriber), @new_keyring);
is($open->ask($select_long), 'long', 'and opens when the keyring has it');

# Many changes at once, while the subscriber's sessions select.
my $any = 'id = (SELECT id FROM keypool.provider_keys ORDER BY random() LIMIT 1)';
my $churn = begin_load($publisher, join("\n",
    q{SELECT keypool_add_key('pool', 'new', 'sk-' || gen_random_uuid());}, q{SELECT keypool_add_key('pool', 'new', 'sk-' || gen_random_uuid());},
    "UPDATE keypool.provider_keys SET priority = priority + 1, key_value = 'sk-' || gen_random_uuid() WHERE $any;",
    "UPDATE keypool.provider_keys SET is_active = NOT is_active WHERE $any;",
    "DELETE FROM keypool.provider_keys WHERE $any;"), '-c', 3, '-T', rounds(2, 30));
my $selecting = begin_load($subscriber, q{SELECT status, key_value FROM keypool_try_select('pool');}, '-c', 2, '-T', rounds(2, 30));
my ($changes, $selections) = map { end_load($_) } $churn, $selecting;
arrived();
is($churn->{errors} . $selecting->{errors}, '', 'keys are changed while the subscriber selects, and no call fails');
cmp_ok($changes, '>', 50, 'many of them');
cmp_ok($selections, '>', 50, 'many times');
my %published = map { $_ => 1 } split /\n/, published($configuration);
my @different = grep { !delete $published{$_} } split /\n/, subscribed($configuration);
push @different, keys %published;
is("@different", '', 'and all keys are the same in the end');
my $meterless = 'SELECT count(*) FROM keypool.provider_keys k FULL JOIN keypool.key_meters m ON m.key_id = k.id WHERE k.id IS NULL OR m.key_id IS NULL';
is(subscribed($meterless), '0', 'each with a meter, and no meter without a key');

published('TRUNCATE keypool.provider_keys');
arrived();
is(subscribed('SELECT (SELECT count(*) FROM keypool.provider_keys), (SELECT count(*) FROM keypool.key_meters)'), '0|0', 'TRUNCATE arrives, and takes the meters along');
is($open->ask(q{SELECT status FROM keypool_try_select('long')}), 'no_key', 'also from a session that was open');
$open->close;

#
# Every table. The meter of a key is copied once; its changes are not among those that are replicated.
#
$_->safe_psql('postgres', 'CREATE DATABASE every') for $publisher, $subscriber;
$_->safe_psql('every', 'CREATE EXTENSION keypool CASCADE') for $publisher, $subscriber;
my $key = published(q{SELECT keypool_add_key('pool', 'copied', 'sk-copied')}, 'every');
published("SELECT keypool_record('$key', 10) FROM generate_series(1, 5)", 'every');
subscribe('every', 'ALL TABLES', 'every');
is(subscribed($totals, 'every'), 'copied|5|50', 'a meter that is published arrives with the first copy');
published("SELECT keypool_record('$key', 10); SELECT keypool_mark_429('$key', 3600)", 'every');
my $added = published(q{SELECT keypool_add_key('pool', 'late', 'sk-late', 1)}, 'every');
published("SELECT keypool_record('$added', 1)", 'every');
arrived('every');
is(subscribed($totals, 'every'), "copied|5|50\nlate|0|0", 'but what is recorded later does not');
is(subscribed($select, 'every'), 'copied|sk-copied|ok', 'and a cooldown does not');
published("SELECT keypool_delete_key('$key')", 'every');
arrived('every');
is(subscribed('SELECT (SELECT count(*) FROM keypool.provider_keys), (SELECT count(*) FROM keypool.key_meters)', 'every'), '1|1', 'a key that is deleted goes');
published('TRUNCATE keypool.provider_keys', 'every');
arrived('every');
is(subscribed('SELECT (SELECT count(*) FROM keypool.provider_keys), (SELECT count(*) FROM keypool.key_meters)', 'every'), '0|0', 'and TRUNCATE does its work');

#
# In binary, too: a meter that comes with a key that is added is sent and read.
#
$_->safe_psql('postgres', 'CREATE DATABASE binaries') for $publisher, $subscriber;
$_->safe_psql('binaries', 'CREATE EXTENSION keypool CASCADE') for $publisher, $subscriber;
$key = published(q{SELECT keypool_add_key('pool', 'copied', 'sk-copied')}, 'binaries');
published("SELECT keypool_record('$key', 10)", 'binaries');
subscribe('binaries', 'ALL TABLES', 'binaries', ' WITH (binary = true)');
published(q{SELECT keypool_add_key('pool', 'late', 'sk-late', 1)}, 'binaries');
published('CREATE TEMP TABLE kept AS TABLE keypool.key_meters; DELETE FROM keypool.key_meters; INSERT INTO keypool.key_meters TABLE kept', 'binaries');
arrived('binaries');
is(subscribed($totals, 'binaries'), "copied|1|10\nlate|0|0", 'keys and meters arrive in binary');
is(subscribed($select, 'binaries'), 'copied|sk-copied|ok', 'and serve');
my $meters = File::Spec->rel2abs($publisher->basedir . '/meters');
published("COPY keypool.key_meters TO '$meters' (FORMAT binary)", 'binaries');
published("DELETE FROM keypool.key_meters; COPY keypool.key_meters FROM '$meters' (FORMAT binary)", 'binaries');
is(published($totals, 'binaries'), "copied|1|10\nlate|0|0", 'a binary COPY of meters is read again');
append_to_file("$meters.bad", "PGCOPY\n\xff\r\n\0" . pack('NNnNa16Na1n', 0, 0, 2, 16, 'x' x 16, 1, '3', 0xffff));
like(failure_of($publisher, "COPY keypool.key_meters FROM '$meters.bad' (FORMAT binary)", 'binaries'), qr/^ERROR:  22P03: /m, 'one that is no meter is refused');
subscribed('DROP SUBSCRIPTION binaries', 'binaries');

#
# Grants. A row is half of what keypool_grant() does; the other half, EXECUTE, is not replicated.
#
$_->safe_psql('postgres', 'CREATE ROLE gateway') for $publisher, $subscriber;
published(q{SELECT keypool_add_key('pool', 'granted', 'sk-granted'); SELECT keypool_grant('gateway', 'app', 'pool')});
subscribe('rights', 'TABLE keypool.grants');
my $as_gateway = q{SET ROLE gateway; SELECT key_label FROM keypool_select('pool')};
arrived();
is(subscribed('SELECT * FROM keypool.grants'), 'gateway|app|pool', 'a grant arrives, by the name of its role');
like(failure_of($subscriber, $as_gateway), qr/^ERROR:  42501: permission denied for function keypool_select$/m, 'and opens nothing by itself');
subscribed(q{SELECT keypool_grant('gateway', 'app', 'pool')});
is(subscribed($as_gateway), 'granted', 'granted on the subscriber, too, it does');
my $session = open_session($subscriber);
is($session->ask($as_gateway), 'granted', 'also in a session that stays open');
published(q{SELECT keypool_revoke('gateway', 'app', 'pool')});
arrived('rights');
is(subscribed('SELECT count(*) FROM keypool.grants'), '0', 'what is taken back is taken back there');
like($session->failure($as_gateway), qr/^ERROR:  42501: permission denied for the keys of this provider$/m, 'which a session that was open obeys');
$session->close;
like(failure_of($subscriber, $as_gateway), qr/^ERROR:  42501: permission denied for the keys of this provider$/m, 'and is obeyed by a new session');
my $from_here = -s $subscriber->logfile;
published(q{CREATE ROLE elsewhere; SELECT keypool_grant('elsewhere', 'monitor')});
$subscriber->wait_for_log(qr/ERROR:  role "elsewhere" does not exist/, $from_here);
pass('a grant to a role that the subscriber lacks stops the subscription');
subscribed('CREATE ROLE elsewhere');
arrived('rights');
is(subscribed('SELECT * FROM keypool.grants'), 'elsewhere|monitor|', 'until it is made');

$subscriber->stop;
$publisher->stop;
experiment('logical replication', 5 * $changes . ' changes of keys', scalar(@different) . ' keys different');
done_testing();
