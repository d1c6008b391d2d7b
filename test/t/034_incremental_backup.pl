# 034_incremental_backup.pl - full and incremental backups under load, combined, are what was recorded when the last was taken.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my ($version) = (run_command([ 'initdb', '--version' ]))[0] =~ /PostgreSQL\) (\d+)/;
plan skip_all => 'incremental backups came with PostgreSQL 17' if $version < 17;

# Every call records the same tokens, so that these say whether a row was torn.
my $tokens = 11;
my @scripts = (
    "SELECT key_id, lease FROM keypool_select('pool', 500) \\gset\nSELECT keypool_record(:key_id, $tokens, :lease);",
    "SELECT key_id, lease FROM keypool_select('pool', 500) \\gset\nSELECT keypool_release(:key_id, :lease);",
);
my $reserving = "SELECT FROM keypool_select('pool', 500);\nSELECT FROM keypool_select('quiet', 500);";    # writes no WAL, or hints only
my $total    = q{SELECT sum(total_requests) FROM keypool_list_keys('pool')};
my $recorded = q{
    SELECT * FROM keypool.provider_keys ORDER BY id;
    SELECT key_id, regexp_replace(meter::text, ' turn=.*', '') FROM keypool.key_meters ORDER BY key_id;
    SELECT quota_id, regexp_replace(meter::text, ' turn=.*', '') FROM keypool.quota_meters ORDER BY quota_id};
my $torn = qq{
    SELECT string_agg(key_label, ' ') FROM keypool_list_keys('pool') k,
        LATERAL (SELECT coalesce(sum(request_count), 0) AS calls, coalesce(sum(token_count), 0) AS tokens FROM keypool_usage(k.id)) u
    WHERE total_tokens <> $tokens * total_requests OR u.calls <> total_requests OR u.tokens <> total_tokens};
my $damage = q{SELECT count(*) FROM unnest('{keypool.key_meters, keypool.quota_meters, keypool.wakeups, keypool.provider_keys}'::regclass[]) t, verify_heapam(t)};

my ($backups, $calls, $torn_rows, $different) = (0, 0, 0, 0);
for my $checksums (0, 1) {
    my $how  = $checksums ? 'with checksums' : 'without checksums';
    my $node = new_cluster("original$checksums", conf => "summarize_wal = on\nwal_log_hints = off\n",
        init => { allows_streaming => 1, extra => [ $checksums ? '--data-checksums' : no_checksums() ] });
    $node->safe_psql('postgres', "CREATE EXTENSION amcheck;
        SELECT count(keypool_add_key(p, i::text, 'sk-' || i)) FROM generate_series(1, 100) i, unnest('{pool, quiet}'::text[]) p");

    # A full one, and then one upon the other, all under load; and a last one when all is quiet.
    my @names = ('full');
    my ($before, $after);
    my @running = map { begin_load($node, $_, '-c', 2, '-T', 600) } @scripts, $reserving;
    sleep(0.5);
    $node->backup('full');
    for my $name ('first', 'second') {
        sleep(0.7);
        $before = $node->safe_psql('postgres', $total);
        $node->backup($name, backup_options => [ '--incremental', $node->backup_dir . "/$names[-1]/backup_manifest" ]);
        $after = $node->safe_psql('postgres', $total);
        push @names, $name;
    }
    $_->{run}->signal('TERM') for @running;
    $calls += end_load($_) for @running;
    my $restored = sub {
        my ($name) = @_;
        my ($last, @prior) = reverse @names;
        my $copy = PostgreSQL::Test::Cluster->new("$name$checksums");
        $copy->init_from_backup($node, $last, combine_with_prior => [ reverse @prior ]);
        $copy->start;
        ++$backups;
        my $rows = $copy->safe_psql('postgres', $torn);
        $torn_rows += () = split / /, $rows;
        is($rows, '', 'and no row is torn');
        is($copy->safe_psql('postgres', $damage), 0, 'and amcheck finds nothing');
        is($copy->safe_psql('postgres', q{SELECT status FROM keypool_try_select('pool')}), 'ok', 'and it serves');
        return $copy;
    };
    note "$how: total $before before the last backup under load, $after after it";
    cmp_ok($after, '>', $before, "an incremental backup is taken under load, $how");
    my $busy   = $restored->('busy');
    my $copied = $busy->safe_psql('postgres', $total);
    ok($copied >= $before && $copied <= $after, 'and has what was recorded when it was taken') or diag("$before, $copied, $after");
    $busy->stop;

    end_load(begin_load($node, $scripts[0], '-c', 2, '-t', 200));
    end_load(begin_load($node, $reserving,  '-c', 2, '-t', 200));
    $node->safe_psql('postgres', q{SELECT keypool_mark_429(id, 3600) FROM keypool_list_keys('quiet') WHERE key_label LIKE '1%'});
    my $then = $node->safe_psql('postgres', $recorded);
    $node->backup('quiet', backup_options => [ '--incremental', $node->backup_dir . "/$names[-1]/backup_manifest" ]);
    push @names, 'quiet';
    my $quiet = $restored->('quiet');
    my $now   = $quiet->safe_psql('postgres', $recorded);
    is($now, $then, "backups that are combined have all that is recorded, $how");
    ++$different if $now ne $then;
    $quiet->stop;
    command_ok([ 'pg_checksums', '--check', '-D', $quiet->data_dir ], 'and the right checksums') if $checksums;
    $node->stop;
}
experiment('incremental backups, combined', "$backups chains, $calls calls while they were taken", "$torn_rows rows torn, $different with a difference");
done_testing();
