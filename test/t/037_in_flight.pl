# 037_in_flight.pl - no more calls are open at once than a quota of several keys allows, whoever dies; and a place whose caller died is
# back after the call's timeout, not before.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use KeypoolCluster;
use List::Util qw(max sum0);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $places  = 8;
my $timeout = 60;
my $seconds = rounds(30, 300);
my $node    = new_cluster('flights', conf => "synchronous_commit = off\n");
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
local $ENV{PYTHONDONTWRITEBYTECODE} = 1;
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub make_pool {
    my ($provider, $call_timeout) = @_;
    value("SELECT keypool_set_provider('$provider', '{\"call_timeout\": $call_timeout}')") if $call_timeout;
    value("SELECT keypool_add_key('$provider', 'key ' || i, 'sk-' || i, settings => '{\"account\": \"org\"}') FROM generate_series(1, 5) i");
    value("SELECT keypool_set_quota('$provider', 'flights', '{\"account\": \"org\", \"max_in_flight\": $places}')");
    return;
}

#
# Many clients that hold calls for a while, and now and then die: their log tells how many calls were open at once. A call is surely open
# from the answer of its selection to the beginning of its settling; that of a client that died, for the timeout.
#
make_pool('pool', $timeout);
my $plan = $node->basedir . '/plan.json';
append_to_file($plan, encode_json({ pools => { pool => { tokens => 100, release => 0.2, limited => 0, die => 0.01, hold => 0.2 } } }));
my $log = $node->basedir . '/calls';
ok(IPC::Run::run([ '/usr/bin/python3', 'test/load/clients.py', $plan, $log, 64, $seconds ]), '64 clients call, and some die');

my (%call, @refused);
for my $line (map { split /\n/, slurp_file($_) } glob "$log.*") {
    my $did = eval { decode_json($line) } // next;    # its writer was killed
    if ($did->{do} ne 'select') { $call{ $did->{grant} }{settled} = $did; }
    elsif ($did->{status} eq 'ok') { $call{ $did->{grant} }{selected} = $did; }
    else { push @refused, $did; }
}
my ($dead, $begin, $end) = (0, 9e99, 0);
my (@surely, @perhaps);    # [time, +1 or -1]
for my $call (values %call) {
    my ($selected, $settled) = @$call{qw(selected settled)};
    my $died = $selected->{from} + $timeout;
    ++$dead if !$settled;
    my ($first_end, $last_end) = $settled ? ($settled->{from}, $settled->{to}) : ($died, $died);
    push @surely, [ $selected->{to}, 1 ], [ $first_end, -1 ] if $selected->{to} < $first_end;
    push @perhaps, [ $selected->{from}, 1 ], [ $last_end, -1 ];
    $begin = $selected->{to} if $selected->{to} < $begin;
    $end = max($end, $selected->{to});
}

# The most that are open at once, and the mean over the time that the clients called.
sub open_calls {
    my ($open, $most, $area, $last) = (0, 0, 0, $begin);
    for my $event (sort { $a->[0] <=> $b->[0] || $a->[1] <=> $b->[1] } @_) {
        my $now = $event->[0] < $begin ? $begin : $event->[0] > $end ? $end : $event->[0];
        $area += $open * ($now - $last);
        $last = $now;
        $open += $event->[1];
        $most = $open if $open > $most;
    }
    return ($most, $area / ($end - $begin));
}
my ($most) = open_calls(@surely);
my (undef, $mean) = open_calls(@perhaps);
note scalar(keys %call) . ' calls, ' . scalar(@refused) . " refusals, $dead died; at most $most were surely open, $mean on average";
cmp_ok(scalar(keys %call), '>', 5 * $seconds, 'there were many calls');
cmp_ok($dead, '>', 0, 'and some were never settled');
is($most, $places, "never more than $places are open, and at times as many");
cmp_ok($mean, '>=', $places - 0.5, 'and on average nearly as many');
is(join(' ', keys %{ { map { ($_->{status} => 1) } @refused } }), 'busy', 'who finds no place is told that all are busy');
is(scalar(grep { !defined $_->{retry} || $_->{retry} < 1 || $_->{retry} > 1000 } @refused), 0, 'and to ask again soon');
experiment('64 clients that hold calls, and die', "$seconds s, " . keys(%call) . " calls, $dead died", $most > $places ? "$most open of $places" : '0 beyond the limit');

# The checker sees a breach: a call more at the time of another.
my ($busiest) = grep { $_->[1] > 0 } @surely;
my ($forged) = open_calls(@surely, map { ([ $begin, 1 ], [ $end, -1 ]) } 1);
cmp_ok($forged, '>', $places, 'a call more would show');

#
# Under a stopped clock: when a dead call's place is back, with the shortest and the usual timeout.
#
my $session = open_session($node);
sub at { my ($moment) = @_; $session->ask(sprintf 'SET keypool.test_now = %s', "'" . value("SELECT to_timestamp($moment)") . "'"); return; }
sub in_flight { my ($provider) = @_; return $session->ask("SELECT q.in_flight || ' ' || sum(k.in_flight) FROM keypool_list_quotas('$provider') q, keypool_list_keys('$provider') k GROUP BY q.in_flight"); }
for my $case ([ 'short', 60, 60 ], [ 'usual', undef, 17 * 60 ], [ 'long', 14400, 14400 ]) {
    my ($provider, $given, $lasts) = @$case;
    make_pool($provider, $given);
    my $now = 1767268803;    # 2026-01-01 12:00:03 UTC
    my $ask = "SELECT status || ' ' || coalesce(blocked_by || ' ' || blocked_limit, '') FROM keypool_try_select('$provider', 10)";

    # One of eight dies a second after another; the last two are settled late.
    my @died;
    my @lease;
    for my $i (0 .. $places - 1) {
        at($now + $i);
        push @lease, [ split /\|/, $session->ask("SELECT key_id, lease FROM keypool_select('$provider', 10)") ];
    }
    at($now + $places);
    is($session->ask($ask), 'busy flights max_in_flight', "$provider: all places are taken");
    is(in_flight($provider), "$places $places", "$provider: in the quota, and in the keys");
    at($now + $lasts - 0.001);
    is($session->ask($ask), 'busy flights max_in_flight', "$provider: and still are just before the first call's timeout");
    is(in_flight($provider), "$places $places", "$provider: all of them");

    # Places come back slot by slot: sixteen to a timeout, so none later than a fifteenth after its own.
    my $late = int(($lasts + 14) / 15);
    my @back;
    for my $offset (0 .. $late + $places) {
        at($now + $lasts + $offset);
        my ($quota, $keys) = split / /, in_flight($provider);
        push @back, $offset for @back + 1 .. $places - $quota;
        ok(0, "$provider: $quota in the quota, $keys in the keys at $offset") if $quota != $keys;
        last if $quota == 0;
    }
    is(scalar(@back), $places, "$provider: all places come back");
    is(scalar(grep { $back[$_] < $_ || $back[$_] > $_ + $late } 0 .. $#back), 0, "$provider: each no sooner than its timeout, and not much later") or diag("@back");

    # Late settlements count, and free nobody else's place.
    is($session->ask("SELECT count(*) FROM generate_series(1, $places) i, LATERAL keypool_select('$provider', i)"), $places, "$provider: and serve again");
    is($session->ask("SELECT keypool_record('$_->[0]', 10, '$_->[1]')"), 't', "$provider: a call that took longer is counted") for @lease[ 6, 7 ];
    is(in_flight($provider), "$places $places", "$provider: and frees no place of another");
    is($session->ask($ask), 'busy flights max_in_flight', "$provider: so there is none");
}
$session->close;

# Right after a start, when selections are dated from the next whole second: a guess is of the time from now all the same.
make_pool('started');
value("SELECT count(keypool_select('started', 10)) FROM generate_series(1, $places)");
$node->restart;
my ($status, $retry) = split /\|/, value("SELECT status, retry_after_ms FROM keypool_try_select('started', 10)");
is($status, 'busy', 'a clean restart keeps the places taken');
cmp_ok($retry, '<=', 1000, 'and who finds none asks again soon');
$node->stop;
done_testing();
