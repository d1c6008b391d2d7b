# 019_history.pl - what many clients were told, over more than a minute and while keys are changed, is checked afterwards from
# their logs by a program that shares no code with keypool.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = rounds(68, 190);
my $calls   = rounds(400, 2000);
my $node    = new_cluster('history', conf => "max_connections = 2200\nsynchronous_commit = off\n");
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
local $ENV{PYTHONDONTWRITEBYTECODE} = 1;

my @versions;    # what the keys were, and from when on

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub version {
    my ($key, %change) = @_;
    my ($last) = grep { $_->{key} eq $key } reverse @versions;
    push @versions, { %{ $last // { key => $key } }, %change };
    return;
}

sub add {
    my ($pool, $priority, $max_rpm, $max_tpm) = @_;
    my $begin = time;
    my $key = value(sprintf(q{SELECT keypool_add_key('%s', 'k', 'sk-' || gen_random_uuid(), %d, %d, %d)}, $pool, $priority, $max_rpm, $max_tpm));
    version($key, pool => $pool, priority => $priority, max_rpm => $max_rpm, max_tpm => $max_tpm, usable => JSON::PP::true,
        time => $begin, until => time);
    return $key;
}

sub change {
    my ($key, $sql, %change) = @_;
    my $begin = time;
    value($sql);
    version($key, %change, time => $begin, until => time);
    return;
}

# Pools that are short of capacity: by requests alone, by tokens alone, by both with all that can befall a call, and one that changes.
add('requests', 0, 40, 0)        for 1 .. 6;
add('tokens',   $_ % 2, 0, 8000) for 1 .. 6;
add('mixed',    $_ % 3, 40, 20000) for 1 .. 9;
my @changing = map { add('changing', $_, 30, 0) } 0 .. 5;
add('changing', 9, 500, 0);
add('rush', 0, $calls / 20 / 10, 0) for 1 .. 10;

my $plan = $node->basedir . '/plan.json';
append_to_file($plan, encode_json({ pools => {
    requests => { tokens => 0,    release => 0,   limited => 0,    die => 0 },
    tokens   => { tokens => 1000, release => 0,   limited => 0,    die => 0.02 },
    mixed    => { tokens => 900,  release => 0.1, limited => 0.02, die => 0.02 },
    changing => { tokens => 0,    release => 0,   limited => 0,    die => 0 },
} }));
my $log = $node->basedir . '/calls';
my $clients = IPC::Run::start([ '/usr/bin/python3', 'test/load/clients.py', $plan, $log, 64, $seconds ]);
my $rush = IPC::Run::start([ '/usr/bin/python3', 'test/load/rush.py', 'rush', $calls, $calls / 20 ], '>', \my $rush_said);

# Meanwhile keys come, go, and change.
my ($changes, $heals) = (0, 0);
my $end = time + $seconds - 2;
while (time < $end) {
    my $key = $changing[ rand @changing ];
    my ($now) = grep { $_->{key} eq $key } reverse @versions;
    my $kind = int(rand 5);
    if ($kind == 0) {
        change($key, "SELECT keypool_delete_key('$key')", usable => JSON::PP::false);
        @changing = grep { $_ ne $key } @changing;
        push @changing, add('changing', int(rand 6), 30, 0);
    } elsif ($kind == 1) {
        my $usable = $now->{usable} ? JSON::PP::false : JSON::PP::true;
        change($key, "SELECT keypool_toggle_key('$key', " . ($usable ? 'true' : 'false') . ')', usable => $usable);
    } elsif ($kind == 2) {
        my $limit = 10 + int(rand 40);
        change($key, "UPDATE keypool.provider_keys SET max_rpm = $limit WHERE id = '$key'", max_rpm => $limit);
    } elsif ($kind == 3) {
        my $priority = int(rand 6);
        change($key, "UPDATE keypool.provider_keys SET priority = $priority WHERE id = '$key'", priority => $priority);
    } else {
        value('SELECT * FROM keypool_heal()');
        ++$heals;
    }
    ++$changes;
    sleep(0.1);
}
ok($clients->finish, 'no client fails');
ok($rush->finish, "$calls calls at once get what there is, and the truth about when there is more") or diag($rush_said);
note $rush_said;

my $keys = $node->basedir . '/keys.json';
append_to_file($keys, encode_json(\@versions));
my $verdict = IPC::Run::run([ '/usr/bin/python3', 'test/load/check_history.py', $keys, glob "$log.*" ], '>', \my $said);
subtest 'the history of every call' => sub {
    plan tests => 7;
    for my $line (grep { /^(not )?ok/ } split /\n/, $said) {
        my ($outcome, $name) = $line =~ /^(not ok|ok) \d+ - (.*)/;
        ok($outcome eq 'ok', $name);
    }
    ok($verdict, 'the checker ends well');
} or diag($said);
my ($grants, $refusals) = $said =~ /(\d+) grants .* (\d+) refusals/;
note $said;
cmp_ok($refusals, '>', 500, 'the pools were short');
cmp_ok($changes - $heals, '>', 20, 'while keys were changed');

# The checker sees a breach: one grant more, at the time of another.
my ($grant) = grep { /"do": "select", "pool": "requests", "status": "ok"/ } split /\n/, slurp_file((sort { -s $b <=> -s $a } glob "$log.*")[0]);
my $forged = $node->basedir . '/forged';
append_to_file($forged, $grant =~ s/"grant": "/"grant": "forged $_/r . "\n") for 1 .. 40;
ok(!IPC::Run::run([ '/usr/bin/python3', 'test/load/check_history.py', $keys, glob("$log.*"), $forged ], '>', \my $caught),
    'the checker finds grants that are too many');
like($caught, qr/^not ok 1 /m, 'and says so');

experiment('64 clients on pools that are short, keys changed meanwhile', "$seconds s, $grants grants, $refusals refusals, $changes changes",
    $verdict ? '0 limits exceeded, 0 refused with room' : 'see above');
experiment('calls at once on room for a twentieth', "$calls calls, twice", $rush_said =~ /^not ok/m ? 'see above' : '0 too many, 0 wrong forecasts');
$node->stop;
done_testing();
