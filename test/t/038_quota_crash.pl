# 038_quota_crash.pl - kill -9 of the server under a load of settlements over four pages: every page has what was acknowledged, all pages
# have the same, a record that is repeated afterwards counts once, and no call is open that was not.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use List::Util qw(sum0);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = rounds(3, 50);
my $seed   = rounds(38, int time);
srand $seed;
note "seed $seed";
my $node = new_cluster('crashes', conf => "shared_buffers = 512kB\nmax_connections = 40\ncheckpoint_timeout = 1h\nbgwriter_delay = 10ms\n");
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# Keys of two accounts. A call draws on its key, its account's quota, that of the organization, and that of the provider.
my %account = (a => 'org/a', b => 'org/b');
my @quotas = (sort values %account, 'org', 'all');
# What every call uses: tokens, output, cached, cost.
my %used = (leased => [ 11, 5, 0, 7 ], leaned => [ 13, 6, 2, 8 ], limited => [ 0, 0, 0, 0 ], released => [ 0, 0, 0, 0 ], repeated => [ 17, 4, 3, 2 ]);
sub amounts { my ($tokens, $output, $cached, $cost) = @{ $used{ $_[0] } }; return "output_tokens => $output, cached_tokens => $cached, cost => $cost"; }
my $clients = 2;
my $select  = q{SELECT key_id, lease FROM keypool_select('%1$s', 500, output_tokens => 100, cost => 3)} . " \\gset\n";
my %script  = (
    leased   => "$select SELECT keypool_record(:key_id, 11, :lease, @{[ amounts('leased') ]});",
    leaned   => "$select SELECT keypool_record(:key_id, 13, @{[ amounts('leaned') ]});",
    limited  => "$select SELECT keypool_mark_429(:key_id, 0, :lease, 'key');\nSELECT keypool_clear_cooldown(:key_id);",
    released => "$select SELECT keypool_release(:key_id, :lease);",
);
# Where it is about noon: no day ends meanwhile.
my $zone = sprintf 'Etc/GMT%+d', (gmtime)[2] - 12;
for my $provider (sort(keys %script), 'repeated') {
    value("SELECT keypool_set_provider('$provider', '{\"time_zone\": \"$zone\"}')");
    value(qq{SELECT keypool_add_key('$provider', account || ' ' || i, 'sk-' || i, settings => jsonb_build_object('account', account))
        FROM generate_series(1, 6) i, unnest('{@{[ join ', ', sort values %account ]}}'::text[]) account});
    for my $name (@quotas) {
        my $account = $name eq 'all' ? '' : qq{, "account": "$name"};
        value(qq{SELECT keypool_set_quota('$provider', '$name', '{"max_rpd": 1000000000, "max_tpm": 1000000000, "max_in_flight": 1000000$account}')});
    }
}
is(value('SELECT count(*), count(account) FROM keypool.quotas'), 5 * @quotas . '|' . 5 * (@quotas - 1), 'every provider has its quotas');

# What each meter has recorded: {provider}{name} => "requests tokens output cached cost", that of a quota's day and month under 'day of
# org/a', the sums of all keys of an account under 'keys of org/a'. And {provider}{'open in org/a'}.
sub meters {
    my %found;
    for (split /\n/, value(q{
        SELECT provider_id, 'quota', name, 0, meter FROM keypool.quotas JOIN keypool.quota_meters ON quota_id = id
        UNION ALL
        SELECT provider_id, 'key', coalesce(name, 'all'), (SELECT coalesce(sum(request_count), 0) FROM keypool_usage(id)), meter
        FROM keypool.provider_keys JOIN keypool.key_meters ON key_id = id, LATERAL unnest(ARRAY[account, 'org', 'all']) name})) {
        my ($provider, $kind, $name, $by_minute, $meter) = split /\|/;
        my @totals = map { $meter =~ /\btotal_$_=(\d+)/ ? $1 : die $meter } qw(requests tokens output cached cost);
        if ($kind eq 'quota') {
            $found{$provider}{$name} = \@totals;
            $found{$provider}{"$_ of $name"} = $meter =~ m{\b$_=\d+/(\d+)/(\d+)/(\d+)/(\d+)/(\d+)} ? [ $1, $2, $3, $4, $5 ] : [ (0) x 5 ] for qw(day month);
        } else {
            my $sum = $found{$provider}{"keys of $name"} //= [ (0) x 5 ];
            $sum->[$_] += $totals[$_] for 0 .. 4;
            $found{$provider}{"minutes of $name"}[0] += $by_minute;
        }
    }
    $found{ (split /\|/)[0] }{ 'open in ' . (split /\|/)[1] } = (split /\|/)[2] for split /\n/, value(q{
        SELECT provider_id, name, in_flight FROM keypool_list_quotas()
        UNION ALL SELECT provider_id, 'keys', sum(in_flight) FROM keypool_list_keys() GROUP BY 1});
    return \%found;
}

my $amounts = amounts('repeated');

# Calls of a session of this test, whose leases it keeps: all of them selected, some settled.
sub begin_calls {
    my ($session) = @_;
    my @calls = map { [ split /\|/ ] } split /\n/, $session->ask(q{SELECT key_id, lease FROM generate_series(1, 24) i, LATERAL keypool_select('repeated', 500 + i * 0)});
    is(scalar(@calls), 24, 'calls are selected') or diag($session->messages);
    my @settled = splice @calls, 0, 16;
    is($session->ask("SELECT keypool_record('$_->[0]', 17, '$_->[1]', $amounts)"), 't', 'a call is settled') for @settled;
    return (\@settled, \@calls);
}

my ($calls, $repeated, @lost, @invented, @torn, @reopened) = (0, 0);
for my $round (1 .. $rounds) {
    my $before  = meters();
    my %running = map { my $provider = $_; $provider => begin_load($node, sprintf($script{$provider}, $provider), '-c', $clients, '-T', 60) } sort keys %script;
    sleep(0.4);
    value('CHECKPOINT') if $round % 3;
    my $session = open_session($node);
    sleep(0.2 + rand 0.6);
    my ($settled, $open) = begin_calls($session);
    my $answered = time;
    crash($node);
    my %said = map { $_ => end_load($running{$_}) } sort keys %running;
    eval { $session->close };
    $said{repeated} = @$settled;
    $node->start;
    my $after = meters();

    for my $provider (sort keys %said) {
        my ($was, $is) = ($before->{$provider}, $after->{$provider});
        my $of = $used{$provider};
        for my $name (sort keys %$is) {
            my $line = "round $round, $provider, $name";
            if ($name =~ /^open in/) {
                # What was open may be lost; but no more is open than before, and the calls that were under way.
                push @reopened, "$line: $is->{$name} after $was->{$name}"
                  if $provider ne 'released' && $is->{$name} > $was->{$name} + ($provider eq 'repeated' ? @$open : $clients);
                next;
            }
            my $amounts = $is->{$name};
            my $expected = join ' ', map { $_ * $amounts->[0] } 1, @$of;
            push @torn, "$line: @$amounts" if "@$amounts" ne $expected && $name !~ /^minutes/;
        }
        for my $quota (@quotas) {
            for my $part ("day of $quota", "month of $quota", "keys of $quota") {
                push @torn, "round $round, $provider: $quota has @{ $is->{$quota} }, $part @{ $is->{$part} }" if "@{ $is->{$quota} }" ne "@{ $is->{$part} }";
            }
            push @torn, "round $round, $provider: $quota has $is->{$quota}[0], its keys by minute $is->{\"minutes of $quota\"}[0]" if $is->{"minutes of $quota"}[0] != $is->{$quota}[0];
        }
        my $requests = $is->{all}[0] - $was->{all}[0];
        my ($least, $most) = $provider eq 'released' ? (0, 0) : ($said{$provider}, $said{$provider} + ($provider eq 'repeated' ? 0 : $clients));
        push @lost, "round $round, $provider: $said{$provider} acknowledged, $requests recorded" if $requests < $least;
        push @invented, "round $round, $provider: $said{$provider} acknowledged, $requests recorded" if $requests > $most;
        $calls += $said{$provider};
    }

    # Settled before, or settled now; either way once.
    SKIP: {
        skip 'the machine was too slow for leases to be known', 1 if time - $answered > 50;
        my $total = "SELECT string_agg(name || ' ' || total_requests, ', ' ORDER BY name) || ', ' || (SELECT sum(total_requests) FROM keypool_list_keys('repeated')) FROM keypool_list_quotas('repeated')";
        my $then = value($total);
        my $again = join '', map { value("SELECT keypool_record('$_->[0]', 17, '$_->[1]', $amounts)") } @$settled;
        is($again . ' ' . value($total), 'f' x @$settled . " $then", "round $round: a record that was acknowledged and is repeated counts once");
        my $first = join '', map { value("SELECT keypool_record('$_->[0]', 17, '$_->[1]', $amounts), keypool_release('$_->[0]', '$_->[1]')") } @$open;
        is($first, 't|f' x @$open, "round $round: a call that was open is settled once");
        $repeated += @$settled + @$open;
    }
}
is(join("\n", @lost), '', 'every acknowledged settlement is there');
is(join("\n", @invented), '', 'and none beyond what was under way');
is(join("\n", @torn), '', 'all pages of a settlement have it, in totals, days and months');
is(join("\n", @reopened), '', 'no call is open that was not');
cmp_ok($calls, '>', 300 * $rounds, 'the server is killed under load');
is(value(q{SELECT count(*) FROM (SELECT meter FROM keypool.key_meters UNION ALL SELECT meter FROM keypool.quota_meters) m WHERE meter::text::keypool.meter::text <> meter::text}),
    0, 'every meter can be read');
experiment('kill -9 under settlements over four pages', "$rounds times, $calls calls, $repeated repeated", @lost . ' lost, ' . @torn . ' torn, ' . @reopened . ' reopened');
$node->stop;
done_testing();
