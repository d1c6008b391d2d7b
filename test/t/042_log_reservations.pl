# 042_log_reservations.pl - with keypool.log_reservations a standby that takes over, and a server after a crash, know what
# was under way; without it they do not.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_cluster('primary', init => { allows_streaming => 1 });
my $standby = PostgreSQL::Test::Cluster->new('standby');
my $open    = 5;    # calls that nobody settles

$primary->safe_psql('postgres', q{
    SELECT keypool_add_key(p, p || i, 'sk-' || p || i, settings => '{"account": "org/project"}')
    FROM unnest(ARRAY['logged', 'hinted', 'crashed']) p, generate_series(1, 3) i;
    SELECT keypool_set_quota(p, 'project', '{"account": "org", "max_in_flight": 6, "max_rpm": 7}') FROM unnest(ARRAY['logged', 'hinted', 'crashed']) p});
$primary->backup('copy');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;

sub select_some {
    my ($provider, $logs, $times) = @_;
    return split /\n/, $primary->safe_psql('postgres',
        "SET keypool.log_reservations = $logs; SELECT key_id || ' ' || lease FROM generate_series(1, $times), LATERAL keypool_select('$provider', generate_series * 0 + 10)");
}

# What a server holds of a provider's quota.
sub held {
    my ($node, $provider) = @_;
    return $node->safe_psql('postgres', "SELECT in_flight || ' in flight, ' || window_requests || ' requests, ' || window_tokens || ' tokens' FROM keypool_list_quotas('$provider')");
}

# A checkpoint, so that the first touch of each page, which is logged whole, is over.
$primary->safe_psql('postgres', 'CHECKPOINT');
for my $provider (qw(logged hinted)) {
    my ($key, $lease) = split / /, (select_some($provider, 'on', 1))[0];
    $primary->safe_psql('postgres', "SELECT keypool_record('$key', 10, '$lease')");
}
my @leases = select_some('logged', 'on', $open);
select_some('hinted', 'off', $open);
my $all = "$open in flight, 6 requests, 60 tokens";
is(held($primary, 'logged'), $all, 'calls are under way on the primary');
is(held($primary, 'hinted'), $all, 'of both kinds');
$primary->safe_psql('postgres', q{SELECT pg_logical_emit_message(true, 'keypool', 'a COMMIT that waits for the disk, and so for all before it')});
$primary->wait_for_catchup($standby, 'replay');
is(held($standby, 'logged'), $all, 'a standby knows those whose reservations were logged');
is(held($standby, 'hinted'), '0 in flight, 1 requests, 10 tokens', 'and not the others');

# A crash: selections wait for no disk, so what is under way is on disk with the next thing that does.
select_some('crashed', 'on', $open);
$primary->safe_psql('postgres', "SELECT keypool_record(id, 1) FROM keypool_list_keys('hinted') LIMIT 1");
crash($primary);
$primary->start;
is(held($primary, 'crashed'), "$open in flight, $open requests, " . 10 * $open . ' tokens', 'nor does a crash lose them');
$primary->stop('immediate');

$standby->promote;
is($standby->safe_psql('postgres', "SELECT status, blocked_by, blocked_limit FROM generate_series(1, 3), LATERAL keypool_try_select('logged', generate_series * 0)"),
    "ok||\nlimited|project|max_rpm\nlimited|project|max_rpm", 'the new primary grants what is left');
my ($key, $lease) = split / /, $leases[0];
is($standby->safe_psql('postgres', "SELECT keypool_record('$key', 4, '$lease'), keypool_record('$key', 4, '$lease')"), 't|f',
    'and a call that began on the old one is settled there, once');
like(held($standby, 'logged'), qr/^5 in flight, 7 requests/, 'which frees its place');
$standby->stop;
done_testing();
