# 020_storms.pl - backends that are killed, terminated, cancelled and timed out under load lose no acknowledged record, and leave
# no lock and no pin; nor do crashes in the middle of changes, or a relation that goes away.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $tokens = 7;
my $node = new_cluster('storms', conf => "restart_after_crash = on\ndeadlock_timeout = 10s\n");
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
local $ENV{PYTHONDONTWRITEBYTECODE} = 1;
$node->safe_psql('postgres', q{CREATE EXTENSION amcheck});

# A statement's answer; the server may be away for a while.
sub value {
    my ($sql) = @_;
    for (1 .. 600) {
        my $answer;
        return $answer if eval { $node->psql('postgres', $sql, stdout => \$answer, on_error_die => 0) == 0 };
        sleep(0.1);
    }
    die "no answer to $sql";
}

sub add_keys {
    my ($provider, $count) = @_;
    value("SELECT count(keypool_add_key('$provider', i::text, 'sk-' || i)) FROM generate_series(1, $count) i");
    value("SELECT keypool_set_quota('$provider', 'all', '{\"max_rpd\": 1000000000}')");
    return;
}

# Clients under a storm: `disturb` is called again and again, for some seconds, and until it has struck so many times, however busy
# the machine is. Returns how often it has, and what the clients counted.
sub weather {
    my ($provider, $seconds, $least, $expected, $disturb) = @_;
    my ($said, $errors) = ('', '');
    my $clients = IPC::Run::start([ '/usr/bin/python3', 'test/load/recorder.py', $provider, $tokens, 8, @$expected ],
        '>', \$said, '2>', \$errors);
    my $end = time + $seconds;
    my $times = 0;
    while (time < $end || ($times < $least && time < $end + 1800)) { $times += $disturb->(); }
    $clients->signal('TERM');
    ok($clients->finish, "$provider: no call fails in a way that was not to be expected") or diag($errors);
    return ($times, decode_json($said));
}

# What was recorded, against what the clients know of.
sub check_count {
    my ($provider, $counted) = @_;
    my ($requests, $spent) = split /\|/, value("SELECT sum(total_requests), sum(total_tokens) FROM keypool_list_keys('$provider')");
    my $sound = $requests >= $counted->{acknowledged} && $requests <= $counted->{acknowledged} + $counted->{unknown}
      && $spent == $requests * $tokens;
    ok($sound, "$provider: every acknowledged record is there, whole, and none that nobody made")
      or diag("$requests requests, $spent tokens, " . encode_json($counted));
    is(value("SELECT total_requests, total_tokens FROM keypool_list_quotas('$provider')"), "$requests|$spent", "$provider: and their quota has the same");
    is(value(q{SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'keypool' AND l.pid <> pg_backend_pid() AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.state <> 'idle')}),
        '0', "$provider: no lock is left");
    return $counted->{acknowledged} - ($sound ? $counted->{acknowledged} : 0);
}

my $workers = q{FROM pg_stat_activity WHERE application_name = 'recorder'};
my %storm = (
    cancelled  => [ ['57014'], sub { return value("SELECT count(pg_cancel_backend(pid)) $workers AND random() < 0.5"); } ],
    terminated => [ ['57014'], sub { sleep(0.02); return value("SELECT count(pg_terminate_backend(pid)) $workers AND random() < 0.3"); } ],
    'timed out' => [ ['57014'], sub { sleep(0.5); return 1; } ],
);
for my $kind (sort keys %storm) {
    my ($expected, $disturb) = @{ $storm{$kind} };
    add_keys($kind, 3);
    local $ENV{PGOPTIONS} = $kind eq 'timed out' ? '-c statement_timeout=1' : '';
    my $seconds = rounds(4, 60);
    my ($times, $counted) = weather($kind, $seconds, $kind eq 'timed out' ? 0 : 4, $expected, $disturb);
    $times = $counted->{failures}{57014} // 0 if $kind eq 'timed out';
    cmp_ok($counted->{acknowledged}, '>', 100, "$kind: there was a load");
    # A call is done within a millisecond on a machine with nothing else to do.
    cmp_ok($times, '>=', 4, "$kind: and a storm") unless $kind eq 'timed out';
    $ENV{PGOPTIONS} = '';
    my $lost = check_count($kind, $counted);
    experiment("backends $kind under load", "$times times, $counted->{acknowledged} records", "$lost records, 0 locks");
}
unlike(slurp_file($node->logfile), qr/WARNING|PANIC|TRAP|leak/, 'no warning of a leaked pin or lock is in the log');

# Single backends killed with signal 9: the server starts anew each time.
{
    add_keys('killed', 3);
    my $kills = rounds(4, 200);
    my $done = 0;
    my ($times, $counted) = weather('killed', rounds(2, 100), $kills, ['57014'], sub {
        return 0 if $done >= $kills;
        my @backends = split /\n/, value("SELECT pid $workers AND state = 'active'");
        return 0 unless @backends;
        kill 'KILL', $backends[ rand @backends ];
        ++$done;
        sleep(0.5);
        return 1;
    });
    cmp_ok($counted->{acknowledged}, '>', 100, 'killed: there was a load');
    is($times, $kills, 'killed: and backends were killed');
    my $lost = check_count('killed', $counted);
    experiment('single backends killed with signal 9', "$times times, $counted->{acknowledged} records", "$lost records");
}

# The whole server killed in the middle of changes.
{
    my $rounds = rounds(3, 20);
    value(q{INSERT INTO keypool.provider_keys (provider_id, key_label, key_value) SELECT 'changing', i, 'sk-' || i FROM generate_series(1, 300) i});
    my $recorded = value(q{SELECT count(keypool_record(id, 11)) FROM keypool_list_keys('changing')});
    my @changes = ('SELECT * FROM keypool_heal()', 'VACUUM FULL keypool.key_meters', 'VACUUM FULL keypool.provider_keys',
        q{SELECT count(keypool_add_key('added', i::text, 'sk-' || gen_random_uuid())) FROM generate_series(1, 300) i},
        'CLUSTER keypool.key_meters USING key_meters_pkey');
    my $bad = 0;
    for my $round (1 .. $rounds) {
        # Another master key each time, so that heal has to seal everything anew.
        my ($line) = grep { /^(primary|round)/ } split /\n/, slurp_file(keyring_of($node));
        write_keyring(keyring_of($node), new_master_key("round$round"), $line);
        my @running = map { my $sql = $_; IPC::Run::start([ 'psql', '-X', '-q', '-d', $node->connstr('postgres'), '-c', $sql ], '>', \my $out, '2>', \my $err) } @changes;
        sleep(rand 0.15);
        crash($node);
        $_->finish for @running;
        $node->start;
        my $state = value(q{
            SELECT (SELECT count(*) FILTER (WHERE total_requests = 1 AND total_tokens = 11) FROM keypool_list_keys('changing')),
                   (SELECT count(*) FROM keypool_list_keys('added')) % 300,
                   (SELECT count(*) FROM keypool.key_meters) = (SELECT count(*) FROM keypool.provider_keys),
                   (SELECT string_agg(result, ' ') FROM keypool_doctor() WHERE "check" LIKE 'secrets%')});
        $bad++ unless is($state, '300|0|t|ok ok ok', "round $round: a change is done or undone as a whole, and every secret opens");
        value('SELECT keypool_heal()');
    }
    experiment('crash during heal, add, VACUUM FULL, CLUSTER', "$rounds times", "$bad states that should not be");
}

# The relation goes away under load, and comes back.
{
    my ($times, $counted) = weather('vanishing', rounds(4, 30), 1, [qw(KP404 42883 42P01 3F000 XX000 42704)], sub {
        add_keys('vanishing', 2);
        sleep(0.2);
        value('TRUNCATE keypool.provider_keys');
        value('DROP EXTENSION keypool');
        value('CREATE EXTENSION keypool');
        return 1;
    });
    cmp_ok($counted->{acknowledged}, '>', 100, 'vanishing: there was a load');
    add_keys('after', 2);
    is(value(q{SELECT status FROM keypool_try_select('after')}), 'ok', 'after all that it works');
    experiment('TRUNCATE, DROP and CREATE EXTENSION under load', "$times times, $counted->{acknowledged} records", '0 crashes');
}

is(value(q{SELECT count(bt_index_check(c.oid, true)) > 2 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'keypool' AND c.relkind = 'i'}), 't', 'the indexes are sound');
is(value(q{SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, verify_heapam(c.oid)
    WHERE n.nspname = 'keypool' AND c.relkind = 'r'}), '0', 'and so are the tables');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|refcount leak|terminated by signal (6|7|11)/, 'no crash is of our own making');
$node->stop;
done_testing();
