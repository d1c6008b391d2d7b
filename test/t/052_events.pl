# 052_events.pl - listeners hear of each COMMIT that brings events, and the log stays bounded and true under concurrent changes.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('events', conf => "max_prepared_transactions = 5\n");
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

my $key = value(q{SELECT keypool_add_key('p', 'a', 'sk-a')});
my $listener = open_session($node);
$listener->ask('LISTEN keypool;');

# The payloads that have come since the listener was asked last. What a COMMIT sends is there when it returns.
sub heard { return join ' ', $listener->ask('SELECT 1;') =~ /notification "keypool" with payload "(\d+)"/g; }
sub newest { return value('SELECT max(id) FROM keypool.event_log'); }

value("SELECT keypool_toggle_key('$key', false)");
is(heard(), newest(), 'a listener hears of a change, by the number of its event');
value("BEGIN; SELECT keypool_toggle_key('$key', true); SELECT keypool_update_key('$key', '{\"max_rpm\": 5}'); COMMIT");
is(heard(), newest(), 'of several in one transaction once, by the newest');
value("BEGIN; SELECT keypool_update_key('$key', '{\"max_rpm\": 6}'); ROLLBACK");
is(heard(), '', 'and of none that is rolled back');
value("BEGIN; SELECT keypool_update_key('$key', '{\"max_rpm\": 7}'); PREPARE TRANSACTION 'a'");
value("COMMIT PREPARED 'a'");
is(heard(), '', 'a transaction that is prepared sends nothing');
is(value(q{SELECT details ->> 'max_rpm' FROM keypool.events LIMIT 1}), '[5, 7]', '... but leaves its event');

# A selection that raises has become short all the same, which the next COMMIT tells.
my $gateway = open_session($node);
$gateway->ask("SELECT keypool_toggle_key('$key', false);");
heard();
$gateway->ask(q{SELECT keypool_select('p');});
$gateway->ask('SELECT 1;');
is(heard(), newest(), 'what is noted by a statement that fails is told with the next COMMIT');
is(value('SELECT event FROM keypool.events LIMIT 1'), 'provider_short', '... as what happened');

# Runs a loop for each key at the same time: a statement with the key and `i`, and what ends its transaction.
sub run_at_once {
    my ($times, $statement, $end, @keys) = @_;
    my @runs = map {
        my $call = $statement =~ s/KEY/'$_'/r;
        IPC::Run::start([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-c',
                qq{DO \$\$ BEGIN FOR i IN 1 .. $times LOOP $call; $end; END LOOP; END \$\$} ], '<', \undef);
    } @keys;
    return scalar grep { !$_->finish } @runs;
}

# Many at once. Every committed change has its event, in order, and none that was not committed has.
my ($sessions, $changes) = (8, rounds(25, 250));
value('SET keypool.keep_events = 100000; DELETE FROM keypool.event_log');
my @keys = split /\n/, value("SELECT keypool_add_key('q', 'k' || i, 'sk-q' || i) FROM generate_series(1, $sessions) i");
$node->append_conf('postgresql.conf', "keypool.keep_events = 100000\n");
$node->reload;
is(run_at_once($changes, q{PERFORM keypool_update_key(KEY, jsonb_build_object('max_rpm', i))}, 'IF i % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF', @keys),
    0, "$sessions sessions change keys at once");
my $committed = grep { $_ % 3 != 0 } 1 .. $changes;
is(value(qq{SELECT count(*), count(DISTINCT subject), bool_and(events = $committed), bool_and(in_order) FROM (
        SELECT subject, count(*) AS events, bool_and(new > coalesce(old, 0)) AS in_order FROM (
            SELECT subject, (details #>> '{max_rpm,1}')::int AS new, lag((details #>> '{max_rpm,1}')::int) OVER (PARTITION BY subject ORDER BY id) AS old
            FROM keypool.event_log WHERE event = 'key_changed') e GROUP BY subject) s}),
    "$sessions|$sessions|t|t", "$sessions sessions: each change that was committed has its event, in order");

# And the same while the log is kept short.
$node->append_conf('postgresql.conf', "keypool.keep_events = 30\n");
$node->reload;
is(run_at_once($changes, q{PERFORM keypool_update_key(KEY, jsonb_build_object('max_tpm', i))}, 'COMMIT', @keys), 0, 'and while old events are deleted');
value("SELECT keypool_update_key('$keys[0]', jsonb_build_object('priority', i)) FROM generate_series(1, 30) i");
cmp_ok(value('SELECT count(*) FROM keypool.event_log'), '<=', 60, 'pruned by many at once, the log is as short as it should be');
is(value('SELECT count(*) FROM keypool.event_log WHERE event = $$key_changed$$ AND id > (SELECT max(id) - 16 FROM keypool.event_log)'), 16,
    'and the newest are there');
experiment('events of concurrent changes', "$sessions sessions, " . $sessions * $changes . ' changes', '0 events missing or out of order');

# An extension that is dropped takes what is noted with it.
is($gateway->ask(q{BEGIN; SELECT status FROM keypool_try_select('nobody'); DROP EXTENSION keypool CASCADE; COMMIT; SELECT 'dropped';}) =~ /dropped/, 1, 'the extension can be dropped by who has noted something');
$gateway->close;
$listener->close;
$node->stop;
done_testing();
