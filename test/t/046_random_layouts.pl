# 046_random_layouts.pl - 64 sessions on ten keys of accounts that lie within each other, under quotas whose pages are
# locked in every order, while the configuration changes: without a deadlock, and nothing is lost.
#
# KEYPOOL_LAYOUT_SECONDS says for how long.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $sessions = 64;
my $seconds  = $ENV{KEYPOOL_LAYOUT_SECONDS} // rounds(8, 180);
my $node     = new_cluster('layouts');
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

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
my $load = sub { my ($clients, $name) = @_; return load_command($node, '-c', $clients, '-j', 1, '-M', 'prepared', '-T', $seconds, '-f', $node->basedir . "/$name.sql"); };
my $changing = IPC::Run::start([ $load->(4, 'change') ], '>', \my $changed, '2>', \my $change_errors);
my ($called, $call_errors) = run_command([ $load->($sessions - 4, 'call') ]);
$changing->finish;
unlike("$call_errors $change_errors", qr/ERROR|deadlock/, 'calls and changes of the configuration go on');
like($called, qr/number of failed transactions: 0/, 'without a failure');
unlike(slurp_file($node->logfile), qr/deadlock detected|TRAP|PANIC/, 'and without a deadlock or a lock out of order');
is(value(q{SELECT sum(total_requests) FROM keypool_list_keys('layout')}), value(q{SELECT total_requests FROM keypool_list_quotas('layout') WHERE name = 'all'}),
    'the quota that was never changed has counted all that the keys have');
my ($transactions) = $called =~ /actually processed: (\d+)/;
experiment('random layouts of 10 keys under 3 quotas, changed meanwhile', "$sessions sessions, $seconds s, $transactions calls", '0 deadlocks, 0 calls lost');

$node->stop;
done_testing();
