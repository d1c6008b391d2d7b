# 032_torn_pages.pl - a crash that leaves pages written in part, sector by sector, neither loses nor tears what was recorded.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $sector = 512;
my $rounds = rounds(2, 20);
my $seed   = rounds(32, time);
srand $seed;
note "seed $seed";

# Few buffers, so that pages are written all the time, also between a change that is in the log and one that is not.
my $conf = "shared_buffers = 128kB\nmax_connections = 20\ncheckpoint_timeout = 1h\nbgwriter_delay = 10ms\n";
my %tokens = (leased => 11, leaned => 13, cooled => 0);
my %script = (
    leased => "SELECT key_id, lease FROM keypool_select('leased', 500) \\gset\nSELECT keypool_record(:key_id, $tokens{leased}, :lease);",
    leaned => "SELECT key_id, lease FROM keypool_select('leaned', 500) \\gset\nSELECT keypool_record(:key_id, $tokens{leaned});",
    cooled => "SELECT key_id, lease FROM keypool_select('cooled', 500) \\gset\nSELECT keypool_mark_429(:key_id, 0, :lease);\nSELECT keypool_clear_cooldown(:key_id);",
    only_reserved => "SELECT key_id, lease FROM keypool_select('only_reserved', 500) \\gset\nSELECT keypool_release(:key_id, :lease);",
);
my @recorded = sort keys %tokens;

sub files_of {
    my ($node) = @_;
    return map { $node->data_dir . '/' . $node->safe_psql('postgres', "SELECT pg_relation_filepath('keypool.$_')") } 'key_meters', 'quota_meters', 'wakeups';
}

# Puts sectors of a file back to what they were, each with even odds; returns how many of these had changed.
sub tear {
    my ($path, $before) = @_;
    my $now  = slurp_file($path);
    my $torn = $now;
    my $back = 0;
    for (my $at = 0; $at < length $before; $at += $sector) {
        next if substr($now, $at, $sector) eq substr($before, $at, $sector) || rand() < 0.5;
        substr($torn, $at, $sector) = substr($before, $at, $sector);
        ++$back;
    }
    open my $file, '>:raw', $path or die "$path: $!";
    print $file $torn;
    close $file or die "$path: $!";
    return $back;
}

# The calls and tokens of every load that are in the totals, and in the minutes.
sub totals {
    my ($node) = @_;
    my %total;
    for (split /\n/, $node->safe_psql('postgres', q{
        SELECT provider_id, sum(total_requests), sum(total_tokens), coalesce(sum(calls), 0), coalesce(sum(tokens), 0), coalesce(sum(refused), 0)
        FROM keypool_list_keys() k, LATERAL (SELECT sum(request_count) AS calls, sum(token_count) AS tokens, sum(rate_limited_count) AS refused
            FROM keypool_usage(k.id)) u GROUP BY 1})) {
        my ($provider, @sums) = split /\|/;
        $total{$provider} = \@sums;
    }
    return \%total;
}

my ($calls, $sectors, $lost_loads, $torn_loads) = (0, 0, 0, 0);
for my $checksums (0, 1) {
    my $node = new_cluster("checksums$checksums", conf => $conf,
        init => { extra => [ $checksums ? '--data-checksums' : no_checksums() ] });
    my $how = $checksums ? 'with checksums' : 'without checksums';

    # Keys of all loads share pages.
    $node->safe_psql('postgres', "CREATE EXTENSION amcheck; SELECT count(keypool_add_key(p, i::text, 'sk-' || i))
        FROM generate_series(1, 12) i, unnest('{@{[ join ', ', sort keys %script ]}}'::text[]) p");
    my @files = files_of($node);
    my (@lost, @invented, @torn);
    for my $round (1 .. $rounds) {
        my $before  = totals($node);
        my %running = map { $_ => begin_load($node, $script{$_}, '-c', 2, '-T', 60) } keys %script;
        sleep(0.5);
        $node->safe_psql('postgres', 'CHECKPOINT');
        my %of_checkpoint = map { $_ => slurp_file($_) } @files;
        sleep(0.5 + rand 0.7);
        crash($node);
        my %said = map { $_ => end_load($running{$_}) } keys %running;
        my $back = 0;
        $back += tear($_, $of_checkpoint{$_}) for @files;
        note "$how, round $round: $back sectors of the checkpoint";
        $sectors += $back;
        $node->start;
        my $after = totals($node);
        for my $load (@recorded) {
            my ($requests, $spent, $by_minute, $spent_by_minute, $refused) = map { $after->{$load}[$_] - $before->{$load}[$_] } 0 .. 4;
            my $line = "$load, $said{$load} acknowledged, $requests recorded, $spent tokens, $by_minute and $spent_by_minute by minute, $refused refused";
            $calls += $said{$load};
            push @lost, $line if $requests < $said{$load};
            push @invented, $line if $requests > $said{$load} + 2;
            push @torn, $line if $spent != $requests * $tokens{$load} || $by_minute != $requests || $spent_by_minute != $spent
                || ($load eq 'cooled' && $refused != $requests);
        }
    }
    $lost_loads += @lost;
    $torn_loads += @torn;
    is("@lost", '', "every acknowledged call is recorded after pages were torn, $how");
    is("@invented", '', 'and none beyond what was in flight');
    is("@torn", '', 'and calls, tokens and minutes agree');
    is($node->safe_psql('postgres', q{SELECT count(*) FROM keypool_list_keys() WHERE open_reservations NOT BETWEEN 0 AND 1000000
        OR window_requests < open_reservations}), 0, 'and no window is nonsense');
    is($node->safe_psql('postgres', q{SELECT count(*) FROM unnest('{keypool.key_meters, keypool.quota_meters, keypool.wakeups}'::regclass[]) t, verify_heapam(t)}),
        0, 'and amcheck finds nothing');
    is(end_load(begin_load($node, $script{leased}, '-c', 2, '-t', 50)), 100, 'and the load goes on');
    $node->stop;
}
cmp_ok($calls, '>', 500 * $rounds, 'the servers are killed under load');
cmp_ok($sectors, '>', 40 * $rounds, 'and many sectors are put back');
experiment('kill -9, and half of the changed sectors put back', 2 * $rounds . " times, $sectors sectors, $calls calls",
    "$lost_loads loads with losses, $torn_loads torn");
done_testing();
