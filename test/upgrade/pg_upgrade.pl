# pg_upgrade.pl - a cluster of PostgreSQL 15 goes on as one of a later version: keys, quotas, meters, totals, windows, grants and
# leases; and a database with the extension as of 0.1.0, which is updated afterwards.
#
# OLD_SERVER is the folder of the old server's bin and lib. Run by test/check-matrix.

use strict;
use warnings FATAL => 'all';

use File::Spec;
use FirstVersion;
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old_server = $ENV{OLD_SERVER} or die 'OLD_SERVER is not set';
my $keyring = File::Spec->rel2abs("$PostgreSQL::Test::Utils::tmp_check/keyring");
write_keyring($keyring, new_master_key('primary'));
my $conf = "keypool.test_now = '2026-01-01 12:30:00+00'\ntimezone = 'UTC'\nkeypool.master_key_file = '$keyring'\njit = off\n";
my @alike = ('--encoding=UTF8', '--locale=C', '--data-checksums');

my $old = PostgreSQL::Test::Cluster->new('old', install_path => $old_server);
$old->init(extra => \@alike);
$old->append_conf('postgresql.conf', $conf);
$old->start;
like($old->safe_psql('postgres', 'SHOW server_version'), qr/^15/, 'the old server is of version 15');
$old->safe_psql('postgres', q{
    CREATE EXTENSION keypool CASCADE;
    CREATE ROLE gateway;
    SELECT keypool_grant('gateway', 'app', 'pool');
    SELECT count(keypool_add_key('pool', i::text, 'sk-' || i, i % 2, 100, 100000, jsonb_build_object('account', 'org/' || i % 3))) FROM generate_series(1, 40) i;
    SELECT keypool_set_quota('pool', 'org', '{"account": "org", "max_rpm": 1000}'), keypool_set_quota('pool', 'first', '{"account": "org/1", "max_tpd": 1000000}');
    SELECT keypool_set_provider('pool', '{"time_zone": "Asia/Kathmandu"}');
    SELECT keypool_record(id, 10) FROM keypool_list_keys('pool');
    SELECT keypool_mark_429(id, 900, scope => 'key') FROM keypool_list_keys('pool') WHERE key_label = '7';
    CREATE TABLE open_lease AS SELECT key_id, lease FROM keypool_select('pool', 500)});

# What 0.1.0 left, of keys with all kinds of counters.
my $now = 1767270600;    # 2026-01-01 12:30:00 UTC
my @first = map { {
    id => (sprintf '00000000-0000-8000-8000-%012d', $_), provider => 'first', label => $_, secret => "sk-first-$_",
    state => { total_requests => $_, total_tokens => 1000 * $_, last_used_at => ($now - $_) * 1_000_000, second => [ [ $now - $_, 1, $_ ] ],
        minute => [ [ int(($now - $_) / 60), 1, $_, 0 ] ], $_ % 2 ? (last_429_at => ($now - 1) * 1_000_000, cooldown_until => ($now + $_) * 1_000_000) : () },
} } 1 .. 40;
make_first_version($old, 'first', '0.1.0', @first);
my $expected = join "\n", map { sprintf '%d|%d|%d|%s|%d', $_, $_, 1000 * $_, $_ % 2 ? $now + $_ : '', $_ < 61 } 1 .. 40;

my $everything = q{
    SELECT to_jsonb(k) FROM keypool_list_keys() k ORDER BY id;
    SELECT u.* FROM keypool_list_keys() k, keypool_usage(k.id) u ORDER BY key_id, window_minute;
    SELECT id, key_value FROM keypool.provider_keys ORDER BY id;
    SELECT key_id, meter FROM keypool.key_meters ORDER BY key_id;
    SELECT to_jsonb(q) FROM keypool_list_quotas() q ORDER BY id;
    SELECT quota_id, meter FROM keypool.quota_meters ORDER BY quota_id;
    SELECT * FROM keypool.quotas ORDER BY id;
    SELECT * FROM keypool.providers;
    SELECT * FROM keypool.grants};
my $before = $old->safe_psql('postgres', $everything);
like($before, qr/"open_reservations": 1/, 'there is something to keep');
$old->stop;

my $new = PostgreSQL::Test::Cluster->new('new');
$new->init(extra => \@alike);
$new->append_conf('postgresql.conf', $conf);
chdir $PostgreSQL::Test::Utils::tmp_check or die $!;
command_ok([ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', "$old_server/bin", '-B', $new->config_data('--bindir'),
        '-s', $new->host, '-p', $old->port, '-P', $new->port ], 'pg_upgrade does its work');
$new->start;
unlike($new->safe_psql('postgres', 'SHOW server_version'), qr/^15/, 'the new server is a later one');
is($new->safe_psql('postgres', $everything), $before, 'keys, quotas, meters, windows, totals and grants are the same');
is($new->safe_psql('postgres', q{SELECT keypool_record(key_id, 3, lease) FROM open_lease; SELECT sum(open_reservations), sum(total_tokens) FROM keypool_list_keys('pool')}),
    "t\n0|403", 'a reservation that was open is settled');
like($new->safe_psql('postgres', q{SET ROLE gateway; SELECT key_value FROM keypool_select('pool')}), qr/^sk-\d+$/, 'a granted role is served, and the secret opens');
is($new->safe_psql('postgres', q{SELECT keypool_add_key('new', 'a', 'sk-new') IS NOT NULL; SELECT key_value FROM keypool_select('new')}), "t\nsk-new",
    'and keys can be added');

# The database of 0.1.0.
like(failure_of($new, q{SELECT * FROM keypool_select('first')}, 'first'), qr/^ERROR:  55000: .*^HINT:  Run ALTER EXTENSION keypool UPDATE\.$/ms,
    'a database of 0.1.0 is not served');
$new->safe_psql('first', 'ALTER EXTENSION keypool UPDATE');
is($new->safe_psql('first', q{SELECT key_label, total_requests, total_tokens, extract(epoch FROM cooldown_until)::bigint, window_requests FROM keypool_list_keys('first') ORDER BY key_label::int}),
    $expected, 'before it is updated; totals, cooldowns and windows are kept');
like($new->safe_psql('first', q{SELECT key_value FROM keypool_select('first')}), qr/^sk-first-\d+$/, 'and the secrets open');
$new->stop;
done_testing();
