# 050_waiting.pl - max_wait: who waits is served when a place comes free, in turn, or refused when the time is over; waiting costs
# next to nothing, holds nothing, and ends at once if it is cancelled.

use strict;
use warnings FATAL => 'all';

use JSON::PP qw(decode_json);
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my ($waiters, $places, $seconds, $max_wait) = $ENV{KEYPOOL_SOAK} ? (500, 100, 10, 40) : (100, 25, 3, 8);
my $node = new_cluster('waiting', conf => "max_connections = 550\nkeypool.max_waiters = 500\n");
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub waiting { return value(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Extension'}); }

sub until_waiting {
    my ($count) = @_;
    for (1 .. 1000) { return 1 if waiting() == $count; usleep(10_000); }
    return 0;
}

# How many stand in lines.
sub in_line { return value(q{SELECT sum(get_byte(ring, 0) + 256 * get_byte(ring, 1)) FROM keypool.wakeups WHERE slot >= 8}); }

sub median { my @sorted = sort { $a <=> $b } @_; return $sorted[ $#sorted / 2 ]; }

#
# Many wait for few places.
#
value(qq{SELECT keypool_add_key('pool', 'key ' || i, 'sk-' || i) FROM generate_series(1, 5) i;
    SELECT keypool_set_quota('pool', 'flights', '{"max_in_flight": $places}')});
my ($said, $errors) = ('', '');
IPC::Run::run([ 'python3', 'test/load/waiters.py', 'pool', $waiters, $places, $seconds, $max_wait ], '>', \$said, '2>', \$errors);
is($errors, '', 'the sessions waited');
my $result = decode_json($said);
my ($freed, $served, $refused) = @$result{qw(freed served refused)};
is(scalar(@$served), $places, 'as many are served as places came free');
is(scalar(@$refused), $waiters - $places, 'and the others are refused');
is("@{ $result->{others} }", '', 'nothing else is answered');
is(scalar(grep { $served->[$_] < $freed->[$_][0] } 0 .. $places - 1), 0, 'nobody is served before a place is free');
my @late = sort { $a <=> $b } map { $served->[$_] - $freed->[$_][1] } 0 .. $places - 1;
my @over = sort { $a <=> $b } map { $_->[1] - $_->[0] - $max_wait } @$refused;
cmp_ok(median(@late), '<', 0.25, 'who is served was woken, and did not look by chance');
cmp_ok($over[0], '>=', 0, 'nobody is refused before the time is over');
cmp_ok(median(@over), '<', 0.25, 'but then');
is(in_line(), 0, 'nobody is left in a line');
experiment("$waiters sessions wait for $places places that come free over $seconds s",
    sprintf('served %.1f ms after it, %.1f at most; refused %.1f ms after their time, %.1f at most; %.3f of a core',
        1000 * median(@late), 1000 * $late[-1], 1000 * median(@over), 1000 * $over[-1], $result->{cpu} / $result->{wall}),
    scalar(@$served) . " of $places served");

#
# What is held meanwhile, and how it ends.
#
value(q{SELECT keypool_add_key('one', 'key', 'sk-one', settings => '{"max_in_flight": 1}')});
my ($key, $lease) = split /\|/, value(q{SELECT key_id, lease FROM keypool_select('one')});
my $wait    = q{SELECT status FROM keypool_try_select('one', max_wait => '%s')};
my $session = open_session($node);
my $process = $session->ask('SELECT pg_backend_pid()');
for my $case ([ 'pg_cancel_backend', qr/57014: canceling statement due to user request/ ], [ 'pg_terminate_backend', qr/57P01: terminating connection/ ]) {
    my ($ends, $error) = @$case;
    my $waits = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', 'postgres', '-c', sprintf($wait, '1 minute') ],
        '>', \my $output, '2>', \my $failure);
    ok(until_waiting(1), 'a session waits');
    is(in_line(), 1, 'in line');
    my $it = value(q{SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Extension'});
    is(value("SELECT count(*) FROM pg_locks WHERE pid = $it AND NOT (locktype = 'virtualxid' AND mode = 'ExclusiveLock')"), 0, 'it holds no lock');
    is(value("SELECT backend_xid FROM pg_stat_activity WHERE pid = $it"), '', 'and no transaction id');
    my $start = time;
    value("SELECT $ends($it)");
    $waits->finish;
    like($failure, $error, $ends);
    cmp_ok(time - $start, '<', 5, 'at once');
    is(in_line(), 0, 'and it leaves the line');
}

# Starts waiting sessions; returns what they answer at the end.
sub begin_waits {
    my (@statements) = @_;
    my $before = waiting();
    my @waits;
    for my $statement (@statements) {
        my $answer = '';
        push @waits, { answer => \$answer, run => IPC::Run::start([ 'psql', '-XAtq', '-d', 'postgres', '-c', $statement ], '>', \$answer) };
        ok(until_waiting($before + @waits), 'it waits') if @waits < @statements;
    }
    return @waits;
}

sub answers_of {
    my (@waits) = @_;
    $_->{run}->finish for @waits;
    return join ' ', map { ${ $_->{answer} } =~ s/\s+$//r } @waits;
}

# So many and no more.
value('ALTER SYSTEM SET keypool.max_waiters = 2');
value('SELECT pg_reload_conf()');
my @waits = begin_waits(map { sprintf $wait, '20 s' } 1 .. 3);
my $start = time;
is(answers_of(pop @waits), 'busy', 'who finds no place to wait is answered');
cmp_ok(time - $start, '<', 10, 'at once');
value("SELECT keypool_release('$key', '$lease')");
value("SELECT keypool_clear_cooldown('$key')");
$waits[0]{run}->finish;
is(${ $waits[0]{answer} }, "ok\n", 'who came first is served first');
value(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Extension'});
$waits[1]{run}->finish;

# A time that comes; a 429 that is cleared; a key that is added, or changed; a quota that goes.
$node->safe_psql('postgres', q{SELECT keypool_add_key('cooling', 'key', 'sk-cooling');
    SELECT keypool_mark_429(keypool_key('cooling', 'key'), 1)});
is(value(q{SELECT status FROM keypool_try_select('cooling', max_wait => '20 s')}), 'ok', 'a cooldown ends');
value(q{SELECT keypool_mark_429(keypool_key('cooling', 'key'), 3600)});
for my $case (
    [ 'a cooldown is cleared',  q{SELECT keypool_clear_cooldown(keypool_key('cooling', 'key'))} ],
    [ 'a key is added',         q{SELECT keypool_mark_429(keypool_key('cooling', 'key'), 3600); SELECT keypool_add_key('cooling', 'new', 'sk-new')} ],
    [ 'a key is switched on',   q{SELECT keypool_mark_429(keypool_key('cooling', 'new'), 3600)}, q{SELECT keypool_toggle_key(keypool_key('cooling', 'off'), true)} ]) {
    my ($name, @statements) = @$case;
    value(q{SELECT keypool_add_key('cooling', 'off', 'sk-off'); SELECT keypool_toggle_key(keypool_key('cooling', 'off'), false)}) if @statements > 1;
    value(shift @statements) if @statements > 1;
    my @one = begin_waits(q{SELECT status FROM keypool_try_select('cooling', max_wait => '30 s')});
    until_waiting(1);
    value($statements[0]);
    is(answers_of(@one), 'ok', "$name while somebody waits");
}

# Of several providers; of keypool_select, which raises.
my @first = begin_waits(q{SELECT provider_id FROM keypool_select_first('{one, pool}', max_wait => '30 s')});
until_waiting(1);
value(q{SELECT keypool_set_quota('pool', 'flights', '{"max_in_flight": null}')});
is(answers_of(@first), 'pool', 'the provider of several that has a key first');
like(failure_of($node, q{SELECT status FROM keypool_select('one', max_wait => '0.2 s')}), qr/KP429: every key of the provider is cooling or at its limits/,
    'keypool_select raises when the time is over');
is(value(q{SELECT status FROM keypool_try_select('nobody', max_wait => '1 minute')}), 'no_key', 'nobody waits for what cannot come');

# A session that a crash has left in its line keeps nobody waiting.
value(q{SELECT keypool_mark_429(keypool_key('cooling', label), 3600) FROM unnest('{key,new,off}'::text[]) label});
my @lost = begin_waits(q{SELECT status FROM keypool_try_select('cooling', max_wait => '1 minute')});
until_waiting(1);
value('CHECKPOINT');
$session->close;
crash($node);
answers_of(@lost);
$node->start;
is(in_line(), 1, 'a crash leaves a session in its line');
value(q{SELECT keypool_clear_cooldown('cooling', NULL); SELECT keypool_clear_cooldown(id), keypool_mark_429(id, 1) FROM keypool_list_keys('cooling')});
my $began = time;
is(value(q{SELECT status FROM keypool_try_select('cooling', max_wait => '20 s')}), 'ok', 'who waits after it is served');
cmp_ok(time - $began, '<', 4, 'at the moment that it was told');
is(in_line(), 0, 'and nobody is left in the line');

# Without the rows of the lines it still waits, by the clock.
value('DELETE FROM keypool.wakeups WHERE slot >= 8');
($key, $lease) = split /\|/, value(q{SELECT key_id, lease FROM keypool_try_select('alone') WHERE false
    UNION ALL SELECT key_id, lease FROM keypool_select((SELECT 'alone' FROM keypool_add_key('alone', 'key', 'sk-alone', settings => '{"max_in_flight": 1}')))});
my @blind = begin_waits(q{SELECT status FROM keypool_try_select('alone', max_wait => '30 s')});
until_waiting(1);
value("SELECT keypool_release('$key', '$lease')");
is(answers_of(@blind), 'ok', 'without lines, a place is found by looking');

$node->stop;
done_testing();
