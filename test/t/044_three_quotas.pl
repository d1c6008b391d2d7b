# 044_three_quotas.pl - 64 sessions on five keys under three quotas at once: never over any of them, and as much as the
# tightest allows; and then on random layouts, while the configuration changes, without a deadlock.

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

#
# An account's quota for a family of models, its quota for a day, and the provider's.
#
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

#
# Random layouts: ten keys of accounts that lie within each other, under quotas whose pages are locked in every order.
#
value(q{
    INSERT INTO keypool.provider_keys (provider_id, key_value, account)
    SELECT 'layout', 'sk-l' || i, CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END || CASE WHEN i % 3 = 0 THEN '/x' ELSE '/y' END FROM generate_series(1, 10) i;
    SELECT keypool_set_quota('layout', 'q' || name, format('{"account": "%s", "max_in_flight": 500, "max_rpd": 1000000000}', account)::jsonb)
    FROM (VALUES ('1', 'b'), ('2', 'a/x'), ('3', 'a'), ('4', 'b/y'), ('5', 'a/y'), ('6', 'b/x')) q (name, account) ORDER BY name;
    SELECT keypool_set_quota('layout', 'all', '{"max_rpd": 1000000000}')});
my %scripts = (
    call => q{
SELECT key_id, lease, status = 'ok' AS served FROM keypool_try_select('layout', 10) \gset
\if :served
SELECT keypool_record(:key_id, 7, :lease);
\endif
}, change => q{
\set quota random(1, 6)
\set account random(1, 4)
SELECT keypool_set_quota('layout', 'q' || :quota, jsonb_build_object('account', (ARRAY['b', 'a/x', 'a', 'b/y', 'a/y', 'b/x'])[:quota], 'max_in_flight', 100 + :account));
DELETE FROM keypool.quotas WHERE provider_id = 'layout' AND name = 'q' || :quota AND :account = 1;
SELECT keypool_update_key(id, '{"weight": 2}') FROM keypool_list_keys('layout') ORDER BY random() LIMIT 1;
});
for my $name (keys %scripts) { append_to_file($node->basedir . "/$name.sql", $scripts{$name}); }
my $load = sub { my ($clients, $name) = @_; return load_command($node, '-c', $clients, '-j', 1, '-M', 'prepared', '-T', rounds(8, 180), '-f', $node->basedir . "/$name.sql"); };
my $changing = IPC::Run::start([ $load->(4, 'change') ], '>', \my $changed, '2>', \my $change_errors);
my ($called, $call_errors) = run_command([ $load->($sessions - 4, 'call') ]);
$changing->finish;
unlike("$call_errors $change_errors", qr/ERROR|deadlock/, 'calls and changes of the configuration go on');
like($called, qr/number of failed transactions: 0/, 'without a failure');
unlike(slurp_file($node->logfile), qr/deadlock detected|TRAP|PANIC/, 'and without a deadlock or a lock out of order');
is(value(q{SELECT sum(total_requests) FROM keypool_list_keys('layout')}), value(q{SELECT total_requests FROM keypool_list_quotas('layout') WHERE name = 'all'}),
    'the quota that was never changed has counted all that the keys have');
my ($transactions) = $called =~ /actually processed: (\d+)/;
experiment('random layouts of 10 keys under 3 quotas, changed meanwhile', "$sessions sessions, $transactions calls", '0 deadlocks, 0 calls lost');

$node->stop;
done_testing();
