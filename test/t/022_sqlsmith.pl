# 022_sqlsmith.pl - random statements on keypool's functions and tables, by a role that may do all that can be granted: no crash, no
# state that is broken, no secret for who has no right to it. In `make soak` only.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

plan skip_all => 'SQLsmith runs in make soak' unless $ENV{KEYPOOL_SOAK};

my $seconds = $ENV{KEYPOOL_SQLSMITH_SECONDS} // 1260;
my $node = new_cluster('smith', conf => "statement_timeout = 2s\nrestart_after_crash = on\nlog_min_messages = warning\nlog_min_error_statement = panic\n");
$node->safe_psql('postgres', q{
    CREATE EXTENSION amcheck;
    CREATE ROLE smith LOGIN;
    GRANT CREATE ON SCHEMA public TO smith;
    SELECT keypool_grant('smith', 'operator');
    GRANT ALL ON ALL TABLES IN SCHEMA keypool TO smith;
    GRANT EXECUTE ON ALL ROUTINES IN SCHEMA keypool TO smith;
    SELECT count(keypool_add_key('p' || i % 5, i::text, 'sk-' || i, i % 3, 100, 100000)) FROM generate_series(1, 40) i;
    SELECT count(keypool_set_quota('p' || i % 5, i::text, '{"max_rpm": 1000}')) FROM generate_series(1, 10) i;
    SELECT count(keypool_record(id, 10)) FROM keypool_list_keys();
});

my ($statements, $rounds, $crashes) = (0, 0, 0);
my $end = time + $seconds;
while (time < $end) {
    my ($output, $errors) = ('', '');
    my $conninfo = sprintf('host=%s port=%d dbname=postgres user=smith', $node->host, $node->port);
    IPC::Run::run([ 'timeout', 60, 'sqlsmith', '--verbose', "--target=$conninfo", '--seed=' . int(rand 2**31), '--max-queries=20000', '--exclude-catalog' ],
        '>', \$output, '2>', \$errors);
    $statements += $1 for ($errors =~ /queries: (\d+)[^\n]*\n(?!.*queries: )/s);
    $node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
    # What is left to work on.
    $node->safe_psql('postgres', q{SELECT count(keypool_add_key('p' || i % 5, i::text, 'sk-' || gen_random_uuid(), i % 3, 100, 100000)) FROM generate_series(1, 10) i});
    ++$rounds;
}
my $log = slurp_file($node->logfile);
my @signals = $log =~ /(terminated by signal \d+|TRAP: .*|PANIC: .*)/g;
is("@signals", '', 'no statement crashes the server');
cmp_ok($statements, '>', $seconds, 'many were tried');
is($node->safe_psql('postgres', q{SELECT (SELECT count(*) FROM keypool.provider_keys k LEFT JOIN keypool.key_meters m ON m.key_id = k.id WHERE m.key_id IS NULL)
    + (SELECT count(*) FROM keypool.quotas q LEFT JOIN keypool.quota_meters m ON m.quota_id = q.id WHERE m.quota_id IS NULL)}), '0',
    'every key and every quota has a meter');
is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT meter FROM keypool.key_meters UNION ALL SELECT meter FROM keypool.quota_meters) m
    WHERE meter::text::keypool.meter::text <> meter::text}), '0', 'and every meter can be read');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, verify_heapam(c.oid)
    WHERE n.nspname = 'keypool' AND c.relkind = 'r'}), '0', 'the tables are sound');
is($node->safe_psql('postgres', q{SELECT count(bt_index_check(c.oid, true)) > 2 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'keypool' AND c.relkind = 'i'}), 't', 'and so are the indexes');
is($node->safe_psql('postgres', q{SELECT keypool_add_key('after', 'a', 'sk-after') IS NOT NULL; SELECT key_value FROM keypool_select('after')}), "t\nsk-after",
    'and keypool works');
experiment('SQLsmith', "$seconds s, $statements statements", scalar(@signals) . ' crashes');
$node->stop;
done_testing();
