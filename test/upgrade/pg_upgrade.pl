# pg_upgrade.pl - a cluster of PostgreSQL 15 goes on as one of a later version: keys, states, totals, windows, grants and leases.
#
# OLD_SERVER is the folder of the old server's bin and lib. Run by test/check-matrix.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old_server = $ENV{OLD_SERVER} or die 'OLD_SERVER is not set';
my $keyring = "$PostgreSQL::Test::Utils::tmp_check/keyring";
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
    SELECT count(keypool_add_key('pool', i::text, 'sk-' || i, i % 2, 100, 100000)) FROM generate_series(1, 40) i;
    SELECT keypool_record(id, 10) FROM keypool_list_keys('pool');
    SELECT keypool_mark_429(id, 900) FROM keypool_list_keys('pool') WHERE key_label = '7';
    CREATE TABLE open_lease AS SELECT key_id, lease FROM keypool_select('pool', 500)});

my $everything = q{
    SELECT to_jsonb(k) FROM keypool_list_keys() k ORDER BY id;
    SELECT u.* FROM keypool_list_keys() k, keypool_usage(k.id) u ORDER BY key_id, window_minute;
    SELECT id, key_value FROM keypool.provider_keys ORDER BY id;
    SELECT key_id, state FROM keypool.key_state ORDER BY key_id;
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
is($new->safe_psql('postgres', $everything), $before, 'keys, states, windows, totals and grants are the same');
is($new->safe_psql('postgres', q{SELECT keypool_record(key_id, 3, lease) FROM open_lease; SELECT sum(open_reservations), sum(total_tokens) FROM keypool_list_keys('pool')}),
    "\n0|403", 'a reservation that was open is settled');
like($new->safe_psql('postgres', q{SET ROLE gateway; SELECT key_value FROM keypool_select('pool')}), qr/^sk-\d+$/, 'a granted role is served, and the secret opens');
is($new->safe_psql('postgres', q{SELECT keypool_add_key('new', 'a', 'sk-new') IS NOT NULL; SELECT key_value FROM keypool_select('new')}), "t\nsk-new",
    'and keys can be added');
$new->stop;
done_testing();
