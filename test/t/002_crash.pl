# 002_crash.pl - what was recorded survives kill -9 under load, exactly; what was only reserved does no harm.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use List::Util qw(sum0);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $rounds  = rounds(4, 50);
my $clients = 10;
my $node    = new_cluster('crash');
my $folder  = $node->basedir;

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub add_key {
    my ($provider, $limits) = @_;
    return value("SELECT keypool_add_key('$provider', '$provider', 'sk-$provider'" . ($limits // '') . ')');
}

# Every load has a key of its own, and all keys have an equal chance to share a page with a neighbour that is changed in
# another way. A load always records the same tokens, so that its total of tokens says whether a record was torn. A minute
# counts no more than 65,535 of 429s, hence the pauses.
my %tokens = (plain => 7, leased => 11, leaned => 13, shared => 17, cooled => 0);
my %key = map { $_ => add_key($_) } sort keys %tokens;
# One counts on four pages: in its key and in three quotas.
value(q{SELECT count(keypool_set_quota('shared', 'quota ' || i, '{"max_rpm": 1000000000}')) FROM generate_series(1, 3) i});
my %script = (
    plain  => "SELECT keypool_record('$key{plain}', $tokens{plain});",
    leased => "SELECT lease FROM keypool_select('leased', 500) \\gset\nSELECT keypool_record('$key{leased}', $tokens{leased}, :lease);",
    leaned => "SELECT lease FROM keypool_select('leaned', 500) \\gset\nSELECT keypool_record('$key{leaned}', $tokens{leaned});",
    shared => "SELECT lease FROM keypool_select('shared', 500) \\gset\nSELECT keypool_record('$key{shared}', $tokens{shared}, :lease);",
    cooled => "\\sleep 2 ms\nSELECT keypool_mark_429('$key{cooled}', 1);",
);
my @loads = sort keys %script;
append_to_file("$folder/$_.sql", "$script{$_}\n") for @loads;

# What is recorded of every load now: its calls and its tokens.
sub recorded {
    my %now;
    for (split /\n/, value(q{SELECT key_label, total_requests, total_tokens FROM keypool_list_keys() WHERE key_label <> 'cooled'})) {
        my ($label, @totals) = split /\|/;
        $now{$label} = \@totals;
    }
    $now{cooled} = [ value("SELECT coalesce(sum(rate_limited_count), 0) FROM keypool_usage('$key{cooled}')"), 0 ];
    return \%now;
}

# What is recorded in the meters of the key and of the quotas that count the same calls, totals, periods, slots and minutes,
# each different one once. A slot ends with what is a key's alone.
sub halves {
    return split /\n/, value(q{
        SELECT DISTINCT regexp_replace(regexp_replace(meter::text, ' turn=.*', ''), '(slot=[0-9/]*)/[0-9]+', '\1', 'g')
        FROM (SELECT meter FROM keypool.key_meters JOIN keypool.provider_keys ON id = key_id WHERE provider_id = 'shared'
              UNION ALL SELECT meter FROM keypool.quota_meters JOIN keypool.quotas ON id = quota_id WHERE provider_id = 'shared') meters});
}

# Starts a load of several clients; every call that is acknowledged is logged on their side.
sub start_load {
    my ($round, $name, $count, @options) = @_;
    my %load = (name => $name, log => "$folder/$round.$name", errors => '');
    $load{run} = IPC::Run::start(
        [ load_command($node, '-c', $count, '-M', 'prepared', '-l', "--log-prefix=$load{log}", '-f', "$folder/$name.sql", @options) ],
        '>', \$load{output}, '2>', \$load{errors});
    return \%load;
}

# Waits until a load has ended, by itself or because its server is gone, and returns the calls acknowledged.
sub acknowledged {
    my ($load) = @_;
    $load->{run}->finish;
    return sum0(map { scalar(my @lines = split /\n/, slurp_file($_)) } glob "$load->{log}.*");
}

# One crash under load: every load's calls are counted on both sides.
my (@lost, @invented, @torn, @apart, $total);
for my $round (1 .. $rounds) {
    my $before = recorded();
    my @running = map { start_load($round, $_, $clients / @loads, '-T', 60) } @loads;
    # A checkpoint at a moment of its own each time: before it the whole page is in the log, after it only changes.
    sleep(0.15 + rand 0.5);
    $node->safe_psql('postgres', 'CHECKPOINT') if $round > 1;
    sleep(0.3 + rand 1.2);
    crash($node);
    my %said = map { $_->{name} => acknowledged($_) } @running;
    $node->start;
    my $after = recorded();
    my @halves = halves();
    push @apart, map { "round $round: $_" } @halves if @halves != 1 || $halves[0] !~ / total_requests=$after->{shared}[0] .* slot=/;
    for my $load (@loads) {
        my ($calls, $spent) = map { $after->{$load}[$_] - $before->{$load}[$_] } 0, 1;
        note "round $round, $load: $said{$load} acknowledged, $calls recorded";
        $total += $said{$load};
        push @lost, "round $round, $load: $said{$load} acknowledged, $calls recorded" if $calls < $said{$load};
        push @invented, "round $round, $load: $said{$load} acknowledged, $calls recorded" if $calls > $said{$load} + $clients / @loads;
        push @torn, "round $round, $load: $calls calls, $spent tokens" if $spent != $calls * $tokens{$load};
    }
}
cmp_ok($total, '>', 1000, 'the server is killed under load');
is("@lost", '', 'every acknowledged call is recorded after a crash');
is("@invented", '', 'nothing is recorded beyond what was acknowledged or in flight');
is("@torn", '', 'calls and tokens agree after a crash');
is("@apart", '', 'and so do a key and the quotas that its calls draw on');
is(value(q{SELECT string_agg(key_label, ' ') FROM keypool_list_keys() k WHERE key_label <> 'cooled' AND total_requests <>
           (SELECT sum(request_count) FROM keypool_usage(k.id))}),
    '', 'the minutes add up to the totals after crashes');
note 'open after the last crash: ' . value(q{SELECT string_agg(key_label || ' ' || open_reservations, ', ' ORDER BY key_label) FROM keypool_list_keys()});
is(value(q{SELECT string_agg(format('%s: %s of %s requests, %s of %s tokens, %s open', key_label, window_requests, total_requests,
                                    window_tokens, total_tokens, open_reservations), '; ') FROM keypool_list_keys()
           WHERE window_requests > total_requests + 100 OR open_reservations NOT BETWEEN 0 AND 100
               OR window_tokens NOT BETWEEN 0 AND total_tokens + 100 * 500}),
    '', 'no window is nonsense after crashes');

value('CREATE EXTENSION amcheck');
is(value(q{SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, verify_heapam(c.oid)
           WHERE n.nspname = 'keypool' AND c.relkind = 'r'}), '0', 'the tables are sound after crashes');
is(value(q{SELECT count(bt_index_check(c.oid, true)) > 2 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = 'keypool' AND c.relkind = 'i'}), 't', 'and so are the indexes');
experiment('kill -9 of the whole server under load', "$rounds times, $total calls", scalar(@lost) . ' loads with losses, ' . scalar(@torn) . ' torn');

# One client that had stopped before the crash: nothing in flight, so nothing may differ. Its window and a cooldown too.
my $stopped = add_key('stopped', ', max_rpm => 40');
append_to_file("$folder/stopped.sql", "SELECT keypool_record('$stopped', 17);\n");
my $cooling = add_key('cooling');
my $reserved = add_key('reserved', ', max_rpm => 5');
my $until = value("SELECT keypool_mark_429('$cooling', 3600)");
my $beside = start_load('last', 'leased', 2, '-T', 60);
is(acknowledged(start_load('last', 'stopped', 1, '-t', 40)), 40, 'a client stops before the crash');
value(q{SELECT FROM generate_series(1, 5) i, keypool_select('reserved', i * 0)});
my $released = add_key('released', ', max_rpm => 5');
value(q{CREATE TABLE lease AS SELECT lease FROM generate_series(1, 5) i, keypool_select('released', i * 0); CHECKPOINT});
value("SELECT keypool_release('$released', lease) FROM lease");
is(value(q{SELECT open_reservations FROM keypool_list_keys('released')}), 0, 'reservations are released after a checkpoint that has them');
crash($node);
acknowledged($beside);
$node->start;
is(value(q{SELECT total_requests, total_tokens, window_requests, window_tokens FROM keypool_list_keys('stopped')}),
    '40|680|40|680', 'what a stopped client recorded is there exactly, in the totals and in the window');
is(value(q{SELECT status FROM keypool_try_select('stopped')}), 'limited', 'a full window is full after a crash');
is(value("SELECT cooldown_until = '$until', last_429_at IS NOT NULL FROM keypool_list_keys('cooling')"), 't|t',
    'a cooldown holds after a crash');
is(value(q{SELECT status FROM keypool_try_select('cooling')}), 'cooling', 'a key that was cooling is not handed out after a crash');
is(value(q{SELECT open_reservations BETWEEN 0 AND 5 AND window_requests = open_reservations FROM keypool_list_keys('reserved')}), 't',
    'a reservation is forgotten or kept');
my $revived = value(q{SELECT open_reservations FROM keypool_list_keys('released')});
note "$revived of 5 released reservations came back";
ok($revived <= 5, 'released ones may come back');
is(value(q{SELECT set_config('keypool.test_now', (now() + interval '61 seconds')::text, false) IS NOT NULL;
           SELECT open_reservations, window_requests FROM keypool_list_keys('released'); SELECT status FROM keypool_try_select('released')}),
    "t\n0|0\nok", 'and are gone 61 seconds later');

# With synchronous_commit off the last calls may be lost, but each as a whole.
{
    my $before = recorded();
    local $ENV{PGOPTIONS} = '-c synchronous_commit=off';
    my @running = map { start_load('asynchronous', $_, 2, '-T', 60) } 'plain', 'leased';
    # Until something of each load is on disk.
    for my $load (qw(plain leased)) {
        sleep(0.1) until recorded()->{$load}[0] > $before->{$load}[0];
    }
    my $written = value('SELECT pg_current_wal_insert_lsn()');
    $node->poll_query_until('postgres', "SELECT pg_current_wal_flush_lsn() >= '$written'");
    crash($node);
    my %said = map { $_->{name} => acknowledged($_) } @running;
    $node->start;
    my $after = recorded();
    for my $load (sort keys %said) {
        my ($calls, $spent) = map { $after->{$load}[$_] - $before->{$load}[$_] } 0, 1;
        ok($calls > 0 && $calls <= $said{$load} + 2 && $spent == $calls * $tokens{$load},
            "not durable, but whole: $load") or diag("$said{$load} acknowledged, $calls recorded, $spent tokens");
    }
}

# An orderly restart loses nothing, reservations neither; and reserving writes no log: the first selection after a checkpoint
# may (with checksums, as for any hint), those after it do not.
my $explain = 'EXPLAIN (ANALYZE, WAL, COSTS OFF, TIMING OFF, SUMMARY OFF)';
my $kept = add_key('kept', ', max_rpm => 5');
like(value("$explain SELECT keypool_record('$kept', 17)"), qr/WAL:/, 'keypool_record writes log');
value(q{CHECKPOINT; SELECT FROM keypool_select('kept')});
unlike(value("$explain SELECT FROM generate_series(1, 2) i, keypool_select('kept', i * 0)"), qr/WAL:/, 'keypool_select writes none');
$node->restart;
is(value(q{SELECT window_requests, open_reservations FROM keypool_list_keys('kept')}), '4|3', 'reservations survive a restart');
is(value(q{SELECT count(*) FILTER (WHERE status = 'ok') FROM generate_series(1, 4) i, keypool_try_select('kept', i * 0)}), 1,
    'and count after it');

$node->stop;
done_testing();
