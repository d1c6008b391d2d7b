# 045_failover_limits.pl - the primary is killed while many long calls are under way, and a standby takes over: with
# keypool.log_reservations limits hold but for the selections of the last half second, which nothing had to wait for.

use strict;
use warnings FATAL => 'all';

use File::Path qw(remove_tree);
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds  = rounds(1, 4);
my $hold    = rounds(9, 25);      # seconds of a call
my $clients = 90;                 # of each provider
my $seconds = $hold + 9;          # so that places that were free again are taken again
my %limit   = (key => 15, quota => 50, in_flight => 40);

my $primary = new_cluster('node0', init => { allows_streaming => 1 }, conf => "max_connections = 220\n");
my (@exceeded, @uncounted, @miscounted, @idle, %most);

# Runs the clients, kills the primary under them, and promotes a standby. Answers the history, and when that was.
sub play {
    my ($round) = @_;
    my @providers = map { "$_$round" } qw(logged hinted);
    $primary->safe_psql('postgres', qq{
        SELECT keypool_add_key(p, 'k' || i, 'sk-' || i, max_rpm => $limit{key}, settings => '{"account": "org/project"}')
        FROM unnest(ARRAY['logged$round', 'hinted$round']) p, generate_series(1, 4) i;
        SELECT keypool_set_quota(p, 'project', '{"account": "org", "max_rpm": $limit{quota}, "max_in_flight": $limit{in_flight}}')
        FROM unnest(ARRAY['logged$round', 'hinted$round']) p});
    $primary->backup("copy$round");
    my $standby = PostgreSQL::Test::Cluster->new("node$round");
    $standby->init_from_backup($primary, "copy$round", has_streaming => 1);
    $standby->start;
    $primary->wait_for_catchup($standby, 'replay');

    local $ENV{PGHOST} = join ',', map { $_->host } $primary, $standby;
    local $ENV{PGPORT} = join ',', map { $_->port } $primary, $standby;
    my ($history, $errors) = ('', '');
    my $running = IPC::Run::start([ 'python3', 'test/load/long_calls.py', $clients, $seconds, $hold, @providers ],
        '>', \$history, '2>', \$errors);
    sleep(3);
    sleep(1.4 - time + int(time));    # within a second, so that the standby may take over in the same one
    my $killed = time;
    crash($primary);
    $standby->promote;
    $running->finish;
    is($errors, '', "round $round: no client failed");
    ($primary, my $old) = ($standby, $primary);
    remove_tree($old->data_dir, $old->backup_dir);    # but not the keyring, which all share
    return ($killed, map { [ split /,/ ] } split /\r?\n/, $history);
}

# Whether a limit was kept, beyond which `late` of these selections may go; and the most that there was.
sub check {
    my ($limit, @history) = @_;
    my $lines = join '', map { join(',', @$_[ 0 .. 4 ]) . "\n" } @history;
    my ($said, $errors) = ('', '');
    IPC::Run::run([ 'python3', 'test/load/check_quotas.py', encode_limit($limit) ], '<', \$lines, '>', \$said, '2>', \$errors);
    die $errors if $errors;
    my ($most) = $said =~ /\((\d+)\)/;
    return (scalar($said =~ /^ok/), $most, $said);
}
sub encode_limit {
    my ($limit) = @_;
    return '[{' . join(', ', map { qq("$_": ) . ($limit->{$_} =~ /^\d+$/ ? $limit->{$_} : qq("$limit->{$_}")) } sort keys %$limit) . '}]';
}

for my $round (1 .. $rounds) {
    my ($killed, @history) = play($round);
    for my $provider (qw(logged hinted)) {
        my @calls = grep { $_->[3] eq "$provider$round" } @history;
        my %late;
        for my $call (@calls) { $late{$_} += $call->[1] > $killed - 0.5 && $call->[0] < $killed for $call->[2], 'all'; }
        my @limits = ({ name => 'quota', models => '*', seconds => 60, max => $limit{quota} + $late{all} },
            { name => 'quota', models => '*', in_flight => $limit{in_flight} + $late{all} },
            map { { name => 'key', models => '*', keys => $_, seconds => 60, max => $limit{key} + $late{$_} } } grep { $_ ne 'all' } keys %late);
        for my $limit (@limits) {
            my ($kept, $most, $said) = check($limit, @calls);
            note "round $round, $provider, $late{all} in the last half second: $said";
            push @exceeded, "$round: $said" if !$kept && $provider eq 'logged';
            my $what = $limit->{in_flight} ? 'in flight' : $limit->{keys} ? 'of a key' : 'of the quota';
            $most{$provider}{$what} = $most if $most > ($most{$provider}{$what} // 0);
            push @idle, "$round: $said" if $limit->{in_flight} && $most < $limit{in_flight};
        }
        push @uncounted, map { "@$_, " . ($killed - $_->[0]) . ' s before' } grep { $_->[5] ne 'True' } @calls;
        my $recorded = $primary->safe_psql('postgres', "SELECT sum(total_requests) FROM keypool_list_keys('$provider$round')");
        push @miscounted, "$provider$round: $recorded of " . @calls if $recorded != @calls;
    }
}
is("@exceeded", '', 'no key and no quota exceeds a limit by more than what the last half second selected');
is("@idle", '', 'and all places are used');
cmp_ok($most{hinted}{'in flight'}, '>', $limit{in_flight} * 1.25, 'without the setting the new primary admits again what is under way');
is("@uncounted", '', 'every call that began on the old primary is settled on the new one');
is("@miscounted", '', 'once');

$primary->stop;
for my $provider (qw(logged hinted)) {
    experiment('failover with calls of ' . "$hold s, keypool.log_reservations " . ($provider eq 'logged' ? 'on' : 'off'), "$rounds failovers, 2 x $clients clients",
        join ', ', map { "$_ at most $most{$provider}{$_}" } sort keys %{ $most{$provider} });
}
done_testing();
