# 013_wal.pl - a selection writes no WAL, a record a little, and neither leaves a dead row; a change is announced by one
# message for each provider, however many keys it changes.

use strict;
use warnings FATAL => 'all';

use File::Spec;
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('wal', conf => "checkpoint_timeout = 1h\nwal_level = replica\n");
my $key = $node->safe_psql('postgres', q{SELECT keypool_add_key('p', 'a', 'sk-a')});

# The bytes of WAL that 10,000 calls write, after as many that touch everything for the first time.
sub wal_of {
    my ($calls) = @_;
    my $session = open_session($node);
    $session->ask('SET synchronous_commit = off');
    $session->ask($calls);
    my $before = $session->ask('SELECT pg_current_wal_insert_lsn()');
    $session->ask($calls);
    my $bytes = $session->ask("SELECT pg_current_wal_insert_lsn() - '$before'");
    $session->close;
    return $bytes;
}

# Less than one record of the smallest kind a call; the server writes a little by itself.
cmp_ok(wal_of(q{SELECT count(status) FROM generate_series(1, 10000) i, keypool_try_select('p', i * 0)}), '<', 10000,
    'a selection writes no WAL');
cmp_ok(wal_of(q{SELECT count(status) FROM generate_series(1, 10000) i, keypool_peek('p', i * 0)}), '<', 10000, 'nor does a peek');
my $bytes = wal_of("SELECT count(keypool_record('$key', i)) FROM generate_series(1, 10000) i");
note 'a record writes ' . int($bytes / 10000) . ' bytes';
cmp_ok($bytes / 10000, '<', 200, 'a record writes less than 200 bytes') or diag($bytes / 10000);
cmp_ok($bytes / 10000, '>', 20, 'and does write');

# The same over a key and three quotas: all pages in one record.
my $shared = $node->safe_psql('postgres', q{SELECT count(keypool_set_quota('q', 'q' || i, '{"max_rpm": 1000000000}')) FROM generate_series(1, 3) i;
    SELECT keypool_add_key('q', 'a', 'sk-a')}) =~ s/.*\n//r;
cmp_ok(wal_of(q{SELECT count(status) FROM generate_series(1, 10000) i, keypool_try_select('q', i * 0)}), '<', 10000,
    'a selection under three quotas writes no WAL');
$bytes = wal_of("SELECT count(keypool_record('$shared', i)) FROM generate_series(1, 10000) i");
cmp_ok($bytes / 10000, '<', 600, 'a record under three quotas writes less than 600 bytes') or diag($bytes / 10000);
note "a record under three quotas writes " . int($bytes / 10000) . " bytes";

# The COMMIT record holds the announcements, of 16 bytes each.
sub commit_after {
    my ($changes) = @_;
    my $session = open_session($node);
    is($session->failure("BEGIN; $changes"), '', 'changes succeed');
    my $before = $session->ask('SELECT pg_current_wal_insert_lsn()');
    $session->ask('COMMIT');
    my $bytes = $session->ask("SELECT pg_current_wal_insert_lsn() - '$before'");
    $session->close;
    return $bytes;
}
my $copy = File::Spec->rel2abs($node->basedir . '/meters.copy');
for my $change (
    q{SELECT count(keypool_add_key('many', i::text, 'sk-many-' || i)) FROM generate_series(1, 10000) i},
    q{INSERT INTO keypool.provider_keys (provider_id, key_value) SELECT 'many', 'sk-inserted-' || i FROM generate_series(1, 5000) i},
    q{UPDATE keypool.provider_keys SET priority = 1; UPDATE keypool.provider_keys SET priority = 2},
    q{SELECT count(keypool_toggle_key(id, false)) FROM keypool.provider_keys},
    q{INSERT INTO keypool.quotas (provider_id, name, account) SELECT 'many', i::text, 'org-' || i FROM generate_series(1, 1000) i},
    q{UPDATE keypool.quotas SET max_rpm = 5 WHERE provider_id = 'many'},
    q{DELETE FROM keypool.quotas WHERE provider_id = 'many'},
    qq{COPY keypool.key_meters TO '$copy'; DELETE FROM keypool.key_meters; COPY keypool.key_meters FROM '$copy'},
    q{SELECT count(keypool_delete_key(id)) FROM keypool.provider_keys WHERE provider_id = 'many'},
) {
    cmp_ok(commit_after($change), '<', 1000, "the COMMIT record is small: $change");
}
# One for each subtransaction too, which may be rolled back by itself.
my $in_parts = q{DO $$ BEGIN FOR i IN 1..100 LOOP BEGIN
    PERFORM count(keypool_add_key('parts', j::text, concat('sk-', i, '-', j))) FROM generate_series(1, 20) j;
    EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$};
cmp_ok(commit_after($in_parts), '<', 100 * 20 + 1000, '100 subtransactions of 20 keys are 100 announcements');
is($node->safe_psql('postgres', q{SELECT count(*) FROM keypool_list_keys('parts')}), 2000, 'which all were committed');
$node->safe_psql('postgres', q{DELETE FROM keypool.provider_keys WHERE provider_id = 'parts'; VACUUM FULL keypool.key_meters});

# Many records.
my $records = rounds(20_000, 1_000_000);
$node->safe_psql('postgres', "SET synchronous_commit = off; SELECT count(keypool_record('$key', 1)) FROM generate_series(1, $records) i");
is($node->safe_psql('postgres', q{SELECT pg_relation_size('keypool.key_meters') / count(*) FROM keypool.provider_keys}), 8192, 'the meters take no more room');
$node->safe_psql('postgres', 'VACUUM keypool.key_meters');
is($node->safe_psql('postgres', q{SELECT n_dead_tup + n_tup_upd FROM pg_stat_user_tables WHERE relname = 'key_meters'}), 0,
    'and have no dead rows');
experiment('records of one key', $records, '0 bytes grown, 0 dead rows');
$node->stop;
done_testing();
