# 015_backup.pl - a base backup under load, recovery to a named moment, and pages that come and go: nothing is torn.

use strict;
use warnings FATAL => 'all';

use File::Spec;
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $seconds = rounds(4, 40);    # of load while a backup is taken
my $node    = new_cluster('original', init => { allows_streaming => 1, has_archiving => 1, extra => ['--data-checksums'] });

my $archive = File::Spec->rel2abs($node->archive_dir);
$node->append_conf('postgresql.conf', "archive_command = 'cp %p $archive/%f'");
$node->reload;

sub value { my ($sql, $of) = @_; return ($of // $node)->safe_psql('postgres', $sql); }

sub add_pool {
    my ($of, $keys) = @_;
    value("CREATE EXTENSION amcheck; SELECT count(keypool_add_key('pool', i::text, 'sk-marker-' || i)) FROM generate_series(1, $keys) i;
           SELECT keypool_set_quota('pool', 'all', '{\"max_rpm\": 1000000000}')", $of);
    return;
}

# Every call uses another of the pool's keys, over many pages, and the same tokens, so that these say whether a row was torn.
my $tokens = 11;
my $load   = "SELECT key_id, lease FROM keypool_select('pool', 500) \\gset\nSELECT keypool_record(:key_id, $tokens, :lease);";

sub total { my ($of) = @_; return value(q{SELECT sum(total_requests) FROM keypool_list_keys('pool')}, $of); }

# The keys of the pool in which calls, tokens and minutes do not agree, and quotas that do not agree with their keys.
sub torn {
    my ($of) = @_;
    return value(qq{
        SELECT string_agg(key_label, ' ') FROM keypool_list_keys('pool') k,
            LATERAL (SELECT coalesce(sum(request_count), 0) AS calls, coalesce(sum(token_count), 0) AS tokens FROM keypool_usage(k.id)) u
        WHERE total_tokens <> $tokens * total_requests OR u.calls <> total_requests OR u.tokens <> total_tokens
           OR window_requests - open_reservations > total_requests
        UNION ALL SELECT 'quota' FROM keypool_list_quotas('pool') q
        WHERE (q.total_requests, q.total_tokens) <> (SELECT sum(total_requests), sum(total_tokens) FROM keypool_list_keys('pool'))}, $of) =~ s/\s+/ /gr;
}

# What amcheck finds in keypool's tables and indexes, after what it has looked at.
sub damage {
    my ($of) = @_;
    return value(q{
        SELECT count(bt_index_check(indexrelid, heapallindexed => true)) FROM pg_index
        WHERE indrelid = ANY ('{keypool.provider_keys, keypool.key_meters, keypool.quotas, keypool.quota_meters, keypool.grants}'::regclass[]);
        SELECT t, v.* FROM unnest('{keypool.provider_keys, keypool.key_meters, keypool.quotas, keypool.quota_meters, keypool.grants}'::regclass[]) t,
            verify_heapam(t, check_toast => true) v}, $of);
}
my $undamaged = '8';

# All that is configured and recorded; not what is reserved.
my $everything = q{
    SELECT * FROM keypool.provider_keys ORDER BY id;
    SELECT * FROM keypool.grants ORDER BY role::text, rights, provider_id;
    SELECT * FROM keypool.quotas ORDER BY id;
    SELECT quota_id, regexp_replace(meter::text, ' turn=.*', '') FROM keypool.quota_meters ORDER BY quota_id;
    SELECT key_id, regexp_replace(meter::text, ' turn=.*', '') FROM keypool.key_meters ORDER BY key_id;};

#
# A base backup under load. It is slowed down, so that pages change while it copies them.
#
add_pool($node, 300);
my $cooling = value(q{SELECT keypool_add_key('cooling', 'cooling', 'sk-marker-cooling')});
my $full    = value(q{SELECT keypool_add_key('full', 'full', 'sk-marker-full', max_rpm => 5)});
value(q{CREATE ROLE gateway; SELECT keypool_grant('gateway', 'app', 'pool')});

my $running = begin_load($node, $load, '-c', 4, '-T', 2 * $seconds);
sleep(0.3);
my $before = total();
$node->backup('under_load', backup_options => [ '--max-rate', int(60000 / $seconds) . 'k' ]);
my $after = total();
sleep(0.1);
my $busy_before = total();
value(q{SELECT pg_create_restore_point('busy')});
my $busy_after = total();
my $said = end_load($running);
cmp_ok($after - $before, '>', 500, 'a backup is taken under load');
cmp_ok(total(), '>', $busy_after, 'and so is a restore point');
is($running->{errors}, '', 'no call fails meanwhile');
is(total(), $said, 'every acknowledged call is recorded');

my $backup = $node->backup_dir . '/under_load';
command_ok([ 'pg_verifybackup', $backup ], 'a backup has all the files of its manifest');
is(join(' ', files_with('sk-marker', $backup)), '', 'a backup holds no secret');
my ($master_key) = slurp_file(keyring_of($node)) =~ /:(.*)/;
is(join(' ', files_with($master_key, $backup)), '', 'nor the master key');

my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($node, 'under_load');
$copy->append_conf('postgresql.conf', 'archive_mode = off');
$copy->start;
my $copied = total($copy);
note("total $before before the backup, $copied in it, $after after it");
ok($copied >= $before && $copied <= $after, 'a server that starts from a backup has what was recorded when it was taken') or diag("$before, $copied, $after");
my @torn = split / /, torn($copy);
is("@torn", '', 'and no row is torn');
is(damage($copy), $undamaged, 'and amcheck finds nothing');
is(value(q{SELECT key_value LIKE 'sk-marker-%' FROM keypool_select('pool')}, $copy), 't', 'and its secrets open');
is(end_load(begin_load($copy, $load, '-c', 4, '-t', 100)), 400, 'and the load goes on');
is(total($copy) - $copied, 400, 'and is recorded exactly');
$copy->stop;
command_ok([ 'pg_checksums', '--check', '-D', $copy->data_dir ], 'and its pages have the right checksums');

#
# Recovery to a named restore point. What comes after it, of all kinds, is not there.
#
value("SELECT keypool_record('$full', 3) FROM generate_series(1, 5)");
value("SELECT keypool_mark_429('$cooling', 7200)");
my $then = value($everything);
my $moment = value('SELECT now()');
$said = total();
value(q{SELECT pg_create_restore_point('quiet')});
end_load(begin_load($node, $load, '-c', 4, '-t', 500));
value("SELECT keypool_clear_cooldown('$cooling'); SELECT keypool_record('$full', 3)");
value(q{SELECT keypool_delete_key(id) FROM keypool_list_keys('pool') WHERE key_label LIKE '1%'});
value(q{SELECT keypool_toggle_key(id, false) FROM keypool_list_keys('pool') WHERE key_label LIKE '2%'});
value(q{SELECT keypool_add_key('pool', 'late', 'sk-marker-late'); UPDATE keypool.provider_keys SET max_rpm = 7});
value(q{SELECT keypool_revoke('gateway', 'app', 'pool'); SELECT keypool_grant('gateway', 'monitor')});
write_keyring(keyring_of($node), new_master_key('next'), split /\n/, slurp_file(keyring_of($node)));
value('SELECT keypool_heal(); VACUUM FULL keypool.key_meters; TRUNCATE keypool.provider_keys');
my $last = value('SELECT pg_walfile_name(pg_switch_wal())');
$node->poll_query_until('postgres', "SELECT last_archived_wal >= '$last' FROM pg_stat_archiver") or die;

# A server recovered from the backup and the archive to a restore point.
sub recovered {
    my ($point) = @_;
    my $at = PostgreSQL::Test::Cluster->new("at_$point");
    $at->init_from_backup($node, 'under_load', has_restoring => 1, standby => 0);
    $at->append_conf('postgresql.conf', "restore_command = 'cp $archive/%f %p'\nrecovery_target_name = '$point'\nrecovery_target_action = promote\narchive_mode = off");
    $at->start;
    $at->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die;
    return $at;
}

my $quiet = recovered('quiet');
is(total($quiet), $said, 'recovered to a moment, the totals are those of that moment exactly');
my $restored = value($everything, $quiet);
is($restored, $then, 'and so are keys, secrets, limits, rights, windows and cooldowns');
is(value(q{SELECT status FROM keypool_try_select('cooling')}, $quiet), 'cooling', 'a cooldown of that moment is obeyed');
is(value(qq{SET keypool.test_now = '$moment'; SELECT status FROM keypool_try_select('full')}, $quiet), 'limited', 'a window too');
is(value(q{SET ROLE gateway; SELECT key_value LIKE 'sk-marker-%' FROM keypool_select('pool')}, $quiet), 't',
    'secrets open as long as the keyring has the master key of that moment');
is(damage($quiet), $undamaged, 'amcheck finds nothing after a recovery');
$quiet->stop;

my $busy = recovered('busy');
my $recovered = total($busy);
note("total $busy_before before the restore point, $recovered recovered, $busy_after after it");
ok($recovered >= $busy_before && $recovered <= $busy_after, 'recovered to a moment under load, the totals are those of that moment')
    or diag("$busy_before, $recovered, $busy_after");
push @torn, split / /, torn($busy);
is("@torn", '', 'and no row is torn');
$busy->stop;
$node->stop;

#
# With the fewest buffers a page is written and read again all the time, also between a change that is in the log and one
# that is not.
#
my $small = new_cluster('small', init => { extra => ['--data-checksums'] },
    conf => "shared_buffers = 128kB\nmax_connections = 20\nwal_log_hints = on\ncheckpoint_timeout = 30s\n");
add_pool($small, 100);
my $released = "SELECT key_id, lease FROM keypool_select('pool', 500) \\gset\nSELECT keypool_release(:key_id, :lease);";
my $replaced = "SELECT keypool_add_key('replaced', 'a', 'sk-' || gen_random_uuid()) AS key_id \\gset\nSELECT keypool_record(:key_id, 1);\nSELECT keypool_delete_key(:key_id);";
my ($calls, @failed) = (0);
for my $end ('crash', 'restart') {
    my @running = map { begin_load($small, $_, '-c', 2, '-T', $end eq 'crash' ? 60 : $seconds / 2) } $load, $released, $replaced;
    for (1 .. 4) { sleep($seconds / 10); value('VACUUM', $small); }
    crash($small) if $end eq 'crash';
    my ($recorded) = map { end_load($_) } @running;
    push @failed, grep { /ERROR/ } map { $_->{errors} } @running;
    $end eq 'crash' ? $small->start : $small->restart;
    $calls += $recorded;
}
is("@failed", '', 'with the fewest buffers no call fails');
cmp_ok($calls, '>', 500, 'and there are many');
my $kept = total($small);
my @torn_small = split / /, torn($small);
ok($kept >= $calls && $kept <= $calls + 2, 'and a crash loses none') or diag("$calls acknowledged, $kept recorded");
is("@torn_small", '', 'and tears no row');
is(damage($small), $undamaged, 'and amcheck finds nothing');
$small->stop;
command_ok([ 'pg_checksums', '--check', '-D', $small->data_dir ], 'and every page has the right checksum');

experiment('base backup and recovery under load', $after - $before . ' calls while it was taken, 2 restore points',
    scalar(@torn) . ' rows torn, ' . ($restored eq $then ? 'no' : 'a') . ' difference to that moment');
experiment('checksums and amcheck with 16 buffers', "$calls calls, a crash, a restart", scalar(@torn_small) . ' rows torn');
done_testing();
