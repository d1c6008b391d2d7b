# 014_failover.pl - the primary is killed under load, and a standby takes over: what was recorded, windows and cooldowns.

use strict;
use warnings FATAL => 'all';

use File::Path qw(remove_tree);
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $rounds  = rounds(1, 10);
my $clients = 4;                                # of each load
my %tokens  = (leased => 11, leaned => 13);     # of each call, so that the tokens say whether a row was torn
my @loads   = sort keys %tokens;

# The server that is the primary now; each standby that takes over becomes it.
my $primary = new_cluster('node0', init => { allows_streaming => 1 });
my $number  = 0;

sub on_primary { my ($sql) = @_; return $primary->safe_psql('postgres', $sql); }

# What is recorded of every key, and its configuration.
my $recorded = q{
    SELECT to_jsonb(k) - 'window_requests' - 'window_tokens' - 'open_reservations' - 'in_flight' FROM keypool_list_keys() k ORDER BY id;
    SELECT u.* FROM keypool_list_keys() k, keypool_usage(k.id) u ORDER BY key_id, window_minute;};

# The calls and tokens that are recorded of a key.
sub totals {
    my ($node, $provider) = @_;
    return split /\|/, $node->safe_psql('postgres', "SELECT total_requests, total_tokens FROM keypool_list_keys('$provider')");
}

# A standby of the primary, caught up. With synchronous replication a COMMIT waits until the standby has replayed it.
sub new_standby {
    my ($synchronous) = @_;
    $primary->backup('copy' . ++$number);
    my $standby = PostgreSQL::Test::Cluster->new("node$number");
    $standby->init_from_backup($primary, "copy$number", has_streaming => 1);
    $standby->start;
    $primary->append_conf('postgresql.conf', "synchronous_standby_names = '*'\nsynchronous_commit = remote_apply") if $synchronous;
    $primary->reload;
    $primary->wait_for_catchup($standby, 'replay');
    $primary->poll_query_until('postgres', 'SELECT sync_state FROM pg_stat_replication', $synchronous ? 'sync' : 'async') or die;
    return $standby;
}

# Keys that nothing is under way for when the primary is killed, by provider.
sub add_quiet_keys {
    my %key;
    for my $quiet ([ 'full', 40 ], [ 'part', 40 ], ['cooling'], ['handed']) {
        my ($name, $limit) = @$quiet;
        $key{$name} = on_primary("SELECT keypool_add_key('$name$number', '$name', 'sk-$name'" . ($limit ? ", max_rpm => $limit" : '') . ')');
    }
    on_primary("SELECT keypool_record('$key{full}', 17) FROM generate_series(1, 40)");
    on_primary("SELECT keypool_record('$key{part}', 17) FROM generate_series(1, 25)");
    $key{until} = on_primary("SELECT keypool_mark_429('$key{cooling}', 3600)");
    $key{lease} = on_primary("SELECT lease FROM keypool_select('handed$number', 500)");
    return %key;
}

sub begin_loads {
    my %running;
    for my $name (@loads) {
        my $key = on_primary("SELECT keypool_add_key('$name$number', '$name', 'sk-$name')");
        my $lease = $name eq 'leased' ? ', :lease' : '';
        $running{$name} = begin_load($primary,
            "SELECT lease FROM keypool_select('$name$number', 500) \\gset\nSELECT keypool_record('$key', $tokens{$name}$lease);",
            '-c', $clients, '-T', 60);
    }
    return %running;
}

# Waits until a standby whose primary is gone has replayed all that it has.
sub replay_rest {
    my ($standby) = @_;
    $standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver') or die;
    my ($before, $now) = ('', $standby->lsn('replay'));
    while ($before ne $now) {
        sleep(0.2);
        ($before, $now) = ($now, $standby->lsn('replay'));
    }
    return;
}

# The first numbers say how often something was done, the lists what went wrong.
my %calls = (synchronous => 0, asynchronous => 0);
my %lost  = (synchronous => 0, asynchronous => 0);
my (@invented, @torn, @unseen, @changed, @window, @full, @part, @cooling, @handed, @after, @failed);

# Kills the primary under load, and promotes a standby. With $halted nothing is sent to the standby in the last moments.
sub fail_over {
    my ($mode, $round, $halted) = @_;
    my $synchronous = $mode eq 'synchronous';
    my $standby = new_standby($synchronous);
    my $what = "$mode, $round";
    my %key = add_quiet_keys();
    $primary->wait_for_catchup($standby, 'replay');
    my %running = begin_loads();
    sleep(0.5 + 0.07 * $round);
    on_primary('CHECKPOINT');
    sleep(0.6 + 0.11 * $round);
    if ($halted) {
        kill 'STOP', on_primary('SELECT pid FROM pg_stat_replication');
        sleep(0.4);
    }
    crash($primary);
    my %said = map { $_ => end_load($running{$_}) } @loads;
    push @failed, grep { /ERROR/ } map { $_->{errors} } values %running;
    my %seen = map { $_ => (totals($standby, "$_$number"))[0] } @loads;
    replay_rest($standby);
    my $replayed = $standby->safe_psql('postgres', $recorded);
    $standby->promote;
    my $old = $primary;
    $primary = $standby;
    push @changed, $what if on_primary($recorded) ne $replayed;

    for my $name (@loads) {
        my ($calls, $spent) = totals($primary, "$name$number");
        my $line = "$what, $name: $said{$name} acknowledged, $seen{$name} seen on the standby, $calls recorded, $spent tokens";
        note $line;
        $calls{$mode} += $said{$name};
        $lost{$mode} += $said{$name} - $calls if $calls < $said{$name};
        push @invented, $line if $calls > $said{$name} + $clients;
        push @torn, $line if $spent != $calls * $tokens{$name};
        push @unseen, $line if $synchronous && $seen{$name} < $said{$name};
        # The seconds that are recorded, without what may be left of reservations.
        my $seconds = on_primary(qq{
            SELECT sum(split_part(field, '/', 2)::bigint), sum(split_part(field, '/', 3)::bigint)
            FROM keypool_list_keys('$name$number') k JOIN keypool.key_meters ON key_id = k.id, regexp_split_to_table(meter::text, ' ') field
            WHERE field LIKE 'slot=%'});
        my $minutes = on_primary("SELECT sum(request_count), sum(token_count) FROM keypool_list_keys('$name$number') k, keypool_usage(k.id)");
        push @window, "$line: seconds $seconds, minutes $minutes" if $seconds ne "$calls|$spent" || $minutes ne "$calls|$spent";
    }
    push @full, $what if on_primary("SELECT status, retry_after_ms BETWEEN 1 AND 61000 FROM keypool_try_select('full$number')") ne 'limited|t';
    push @part, $what if on_primary("SELECT count(*) FILTER (WHERE status = 'ok') FROM generate_series(1, 40) i, keypool_try_select('part$number', i * 0)") ne '15';
    push @cooling, $what if on_primary(qq{
        SELECT s.status, k.cooldown_until = '$key{until}', k.last_429_at IS NOT NULL
        FROM keypool_try_select('cooling$number') s, keypool_list_keys('cooling$number') k}) ne 'cooling|t|t';
    on_primary("SELECT keypool_record('$key{handed}', 19, '$key{lease}')");
    push @handed, $what if on_primary("SELECT window_requests, window_tokens, total_requests, total_tokens FROM keypool_list_keys('handed$number')") ne '1|19|1|19';

    # The load goes on where it was.
    my ($before) = totals($primary, "leased$number");
    my $done = end_load(begin_load($primary, slurp_file("$running{leased}{path}.sql"), '-c', $clients, '-t', 50));
    my ($calls, $spent) = totals($primary, "leased$number");
    push @after, "$what: $done done, $before before, $calls after" if $done != $clients * 50 || $calls != $before + $done || $spent != $calls * $tokens{leased};
    remove_tree($old->data_dir, $old->backup_dir);    # but not the keyring, which all share
    return;
}

# Killed out of the blue, and with the last moments unsent: each mode begins with what is hardest for it.
for my $round (1 .. $rounds) {
    fail_over('synchronous', $round, $round % 2 == 0);
    fail_over('asynchronous', $round, $round % 2 == 1);
}
cmp_ok($calls{$_}, '>', 200 * $rounds, "the primary is killed under load: $_") for sort keys %calls;
is("@failed", '', 'and no call failed before');
is($lost{synchronous}, 0, 'with synchronous replication every acknowledged call is recorded after a failover');
is("@unseen", '', 'and could be seen on the standby when it was acknowledged');
cmp_ok($lost{asynchronous}, '>', 0, 'with asynchronous replication what was not sent is lost');
is("@changed", '', 'all that a standby had replayed is there after its promotion');
is("@invented", '', 'nothing is recorded beyond what was acknowledged or in flight');
is("@torn", '', 'calls and tokens agree after a failover');
is("@window", '', 'the seconds of the window and the minutes add up to the totals after a failover');
is("@full", '', 'a full key is full on the new primary');
is("@part", '', 'a key that has room serves as many as it has room for');
is("@cooling", '', 'a cooldown holds on the new primary');
is("@handed", '', 'a lease that the old primary gave is settled on the new one');
is("@after", '', 'the load goes on on the new primary, and is recorded exactly');

$primary->stop;
experiment('failover, synchronous replication', "$rounds failovers, $calls{synchronous} calls", "$lost{synchronous} acknowledged calls");
experiment('failover, asynchronous replication', "$rounds failovers, $calls{asynchronous} calls",
    "$lost{asynchronous} acknowledged calls; of what was replayed: " . scalar(@changed) . ' failovers with a difference');
done_testing();
