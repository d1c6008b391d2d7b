# 044_three_quotas.pl - 64 sessions on five keys under three quotas at once: never over any of them, and as much as the
# tightest allows.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $sessions = 64;
my $seconds  = rounds(66, 185);
my $node     = new_cluster('three');
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# An account's quota for a family of models, its quota for a day, and the provider's.
my ($family, $day, $provider) = (60, 250, 90);
value(qq{
    SELECT keypool_add_key('three', 'k' || i, 'sk-' || i, settings => '{"account": "org/project"}') FROM generate_series(1, 5) i;
    SELECT keypool_set_quota('three', 'family', '{"account": "org/project", "models": ["gpt-4o*"], "max_rpm": $family}'),
           keypool_set_quota('three', 'day', '{"account": "org", "max_rpd": $day}'),
           keypool_set_quota('three', 'provider', '{"max_rpm": $provider}');
    CREATE UNLOGGED TABLE history (began timestamptz, ended timestamptz, key text, model text)});

my $script = $node->basedir . '/three.sql';
append_to_file($script, q{
\set kind random(1, 3)
WITH begin AS MATERIALIZED (SELECT clock_timestamp() AS at, (ARRAY['gpt-4o', 'gpt-4o-mini', 'o3'])[:kind] AS model),
     call AS MATERIALIZED (SELECT at, model, s.* FROM begin, LATERAL keypool_try_select('three', CASE WHEN at IS NOT NULL THEN 10 END, model) s),
     done AS (INSERT INTO history SELECT at, clock_timestamp(), key_label, model FROM call WHERE status = 'ok')
SELECT coalesce(key_id::text, '') AS key, coalesce(lease, '') AS lease FROM call \gset
SELECT keypool_record(nullif(:key, '')::uuid, 7, nullif(:lease, '')) WHERE :key <> '';
\sleep 20 ms
});
# Days are those of UTC, and the test must not run into the next.
my $left = value(q{SELECT extract(epoch FROM date_trunc('day', now() AT TIME ZONE 'UTC') + interval '1 day' - now() AT TIME ZONE 'UTC')::int});
sleep $left + 1 if $left < $seconds + 5;
system_or_bail(load_command($node, '-c', $sessions, '-j', 2, '-M', 'prepared', '-T', $seconds, '-f', $script));

# In each window of 61 seconds, which are what is counted, the provider's quota is used once.
my $windows  = int($seconds / 61) + 1;
my $possible = $windows * $provider < $day ? $windows * $provider : $day;
my $limits   = qq{[{"name": "family", "models": "gpt-4o*", "seconds": 60, "max": $family},
    {"name": "day", "models": "*", "seconds": 86400, "max": $day},
    {"name": "provider", "models": "*", "seconds": 60, "max": $provider, "expected": $possible}]};
my $history = value(q{SELECT extract(epoch FROM began), extract(epoch FROM ended), key, model FROM history}) =~ tr/|/,/r;
my ($said, $error) = ('', '');
IPC::Run::run([ 'python3', 'test/load/check_quotas.py', $limits ], '<', \$history, '>', \$said, '2>', \$error);
is($error, '', 'the history was read');
for my $result (grep { /^(not )?ok / } split /\n/, $said) { ok($result =~ /^ok/, $result =~ s/^(?:not )?ok \d+ - //r); }
is(value(q{SELECT count(DISTINCT total_requests) FROM keypool_list_quotas('three') WHERE name <> 'family'}), 1, 'quotas of the same calls agree');
is(value(q{SELECT sum(total_requests) FROM keypool_list_keys('three')}), value(q{SELECT total_requests FROM keypool_list_quotas('three') WHERE name = 'day'}),
    'and are the sum of the keys');
experiment('three quotas over five keys', "$sessions sessions, $seconds s", (split /\n/, $said)[3] =~ s/.*: //r);

$node->stop;
done_testing();
