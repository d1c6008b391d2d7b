# 004_dump_restore.pl - a database that is dumped and restored goes on where the old one was.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The clock stands still, so that windows can be compared too.
my $node   = new_cluster('dumped', conf => "keypool.test_now = '2026-01-01 12:30:00+00'\ntimezone = 'UTC'\n");
my $folder = $node->basedir;
my @to     = ('-h', $node->host, '-p', $node->port);

# A pool with a history of an hour: all kinds of limits and meters, quotas, open and settled reservations, and turns that
# were taken in another order than that of the ids.
$node->safe_psql('postgres', q{
    SELECT count(keypool_add_key('pool', 'equal ' || i, 'sk-marker-' || i, 1)) FROM generate_series(1, 30) i;
    SELECT keypool_add_key('pool', NULL, 'sk-marker-unlabelled', 2, 100, 100000);
    SELECT keypool_add_key('other', E'quo"te\\\\t , ''é', 'sk-marker-é ''"\\', -2147483648, 9223372036854775807, 9223372036854775807);
    SELECT keypool_add_key('full', 'full', 'sk-marker-full', max_rpm => 3) AS full_key \gset
    SELECT keypool_add_key('quotas', 'quota ' || i, 'sk-marker-quota-' || i, settings => format('{"account": "org/%s", "weight": %s}', i % 2, i)::jsonb)
        FROM generate_series(1, 3) i;
    SELECT keypool_set_quota('quotas', 'org', '{"account": "org", "max_rpm": 20, "max_rpd": 1000}');
    SELECT keypool_set_quota('quotas', 'large', '{"models": ["large*"], "account": "org/1", "max_tpd": 5000, "day": "rolling", "counts": "prompt"}');
    SELECT keypool_set_quota('quotas', 'flight', '{"max_in_flight": 5, "max_tph": 90000, "time_zone": "Asia/Kathmandu"}');
    SELECT keypool_set_provider('quotas', '{"call_timeout": 600, "default_tokens": 100}');
    SELECT keypool_set_error_rule('quotas', 529, NULL, 'rate', 'key');
    SELECT keypool_add_key('cooling', 'cooling', 'sk-marker-cooling') AS cooling \gset
    SELECT keypool_add_key('off', 'off', 'sk-marker-off') AS off \gset
    SELECT keypool_add_key('off', 'resting', 'sk-marker-resting') AS resting \gset
    DO $$
    BEGIN
        FOR age IN REVERSE 59 .. 0 LOOP
            PERFORM set_config('keypool.test_now', (timestamptz '2026-01-01 12:30:00+00' - age * interval '1 min')::text, false);
            PERFORM keypool_record(id, age * 10) FROM keypool_list_keys('pool') WHERE abs(hashtext(key_label)) % 5 <> age % 5;
            PERFORM keypool_record(id, age + 1, output_tokens => 1, cost => 2, model => 'large-1') FROM keypool_list_keys('quotas');
        END LOOP;
    END $$;
    SET keypool.test_now = '2026-01-01 12:29:30+00';
    SELECT count(*) FROM generate_series(1, 47) i, keypool_select('pool', i * 0 + 10);
    SELECT keypool_record(key_id, 5, lease) FROM keypool_select('pool', 1000);
    SELECT keypool_release(key_id, lease) FROM keypool_select('pool', 1000);
    SELECT keypool_record(:'full_key', 7) FROM generate_series(1, 2);
    SELECT lease AS full_lease FROM keypool_select('full', 900) \gset
    SELECT count(*) FROM generate_series(1, 3) i, keypool_select('quotas', i * 0 + 20);
    CREATE TABLE open_lease AS SELECT :'full_key'::uuid AS key, :'full_lease' AS lease;
    INSERT INTO open_lease SELECT key_id, lease FROM keypool_select('quotas', 500, 'large-1', 50);
    SELECT keypool_mark_429(id, 70, scope => 'model', model => 'small') FROM keypool_list_keys('quotas') WHERE key_label = 'quota 1';
    SELECT keypool_mark_429(:'cooling', 900);
    SELECT keypool_toggle_key(:'off', false);
    SELECT keypool_toggle_key(:'resting', false, 3600);
});

# All that can be seen of a database.
my $everything = q{
    SELECT to_jsonb(k) FROM keypool_list_keys() k ORDER BY id;
    SELECT u.* FROM keypool_list_keys() k, keypool_usage(k.id) u ORDER BY key_id, window_minute;
    SELECT id, inactive_until, key_value FROM keypool.provider_keys ORDER BY id;
    SELECT key_id, meter FROM keypool.key_meters ORDER BY key_id;
    SELECT to_jsonb(q) FROM keypool_list_quotas() q ORDER BY id;
    SELECT quota_id, meter FROM keypool.quota_meters ORDER BY quota_id;
    SELECT to_jsonb(q) FROM keypool.quotas q ORDER BY id;
    TABLE keypool.providers; TABLE keypool.error_rules;};

# What a database hands out next: the secrets, in their order.
my $next = q{
    SELECT i, key_label, key_value, status, retry_after_ms FROM generate_series(1, 80) i, keypool_try_select('pool', i * 10);
    SELECT key_label, key_value FROM keypool_select('other');
    SELECT i, key_label, key_value, status, retry_after_ms, blocked_by, blocked_limit
        FROM generate_series(1, 4) i, keypool_try_select('quotas', i * 10, CASE WHEN i < 3 THEN 'small' ELSE 'large-1' END);
    SELECT status, retry_after_ms FROM keypool_try_select('full');
    SELECT status, retry_after_ms FROM keypool_try_select('cooling');
    SELECT status, retry_after_ms FROM keypool_try_select('off');};

my $before = $node->safe_psql('postgres', $everything);
like($before, qr/"open_reservations": 2/, 'there is something to keep');

system_or_bail('pg_dump', @to, '-f', "$folder/plain.sql", 'postgres');
system_or_bail('pg_dump', @to, '-Fc', '-Z0', '-f', "$folder/custom.dump", 'postgres');
system_or_bail('pg_dump', @to, '-Fd', '-Z0', '-f', "$folder/folder.dump", 'postgres');
system_or_bail('pg_dump', @to, '--data-only', '-f', "$folder/data.sql", 'postgres');
is(join(' ', files_with('sk-marker', $folder)), '', 'no dump, log or data file holds a secret');
is(scalar(grep { /^(plain\.sql|data\.sql|custom\.dump|folder\.dump\/.*\.dat)$/ } files_with('enc:v1:primary:', $folder)), 4,
    'every dump holds the sealed ones');
unlike(slurp_file("$folder/plain.sql"), qr/^CREATE \w+ (public\.keypool_|keypool)/m,
    'a dump leaves to the extension what the extension makes');

sub database { my ($name) = @_; $node->safe_psql('postgres', "CREATE DATABASE $name TEMPLATE template0"); return $name; }
my @psql = ('psql', '-X', '-q', '-o', '/dev/null', @to, '-v', 'ON_ERROR_STOP=1');

system_or_bail(@psql, '-d', database('plain'), '-f', "$folder/plain.sql");
system_or_bail('pg_restore', @to, '--exit-on-error', '-d', database('custom'), "$folder/custom.dump");
system_or_bail('pg_restore', @to, '--exit-on-error', '--jobs', 4, '-d', database('parallel'), "$folder/folder.dump");
system_or_bail('pg_restore', @to, '--exit-on-error', '--single-transaction', '-d', database('single'), "$folder/custom.dump");
$node->safe_psql(database('data'), 'CREATE EXTENSION keypool CASCADE; CREATE TABLE open_lease (key uuid, lease text)');
system_or_bail(@psql, '-d', 'data', '-f', "$folder/data.sql");

my %how = (
    plain    => 'plain',
    custom   => 'custom format',
    parallel => 'four jobs at once',
    single   => 'one transaction',
    data     => 'data alone, into a fresh extension',
);
my @restored = qw(plain custom parallel single data);
is($node->safe_psql($_, $everything), $before, "$how{$_}: keys, limits, totals, windows and minutes are the same") for @restored;

my $expected = $node->safe_psql('postgres', $next);
like($expected, qr/sk-marker-30.*sk-marker-é '"\\.*sk-marker-quota.*busy\|.*flight\|.*limited\|.*cooling\|.*no_key\|/s, 'there is something to compare');
is($node->safe_psql($_, $next), $expected, "$how{$_}: the same keys are next, and their secrets open") for @restored;

my $settle = q{
    SELECT keypool_record(key, 3, lease) FROM open_lease;
    SELECT keypool_record(key, 3, lease) FROM open_lease;
    SELECT window_requests, window_tokens, open_reservations, total_requests FROM keypool_list_keys('full');
    SELECT name, total_requests, total_tokens, in_flight FROM keypool_list_quotas('quotas') ORDER BY name};
my $settled = $node->safe_psql('postgres', $settle);
like($settled, qr/^t\nt\nf\nf\n3\|17\|0\|3\nflight\|18[12]\|5493\|4\nlarge\|/, 'each is settled once, in the key and in its quotas');
is($node->safe_psql($_, $settle), $settled, "$how{$_}: reservations that were open are settled") for @restored;

# A session that has the pool in mind sees what a restore brings.
my $open = open_session($node, database('reached'));
$open->ask('CREATE EXTENSION keypool CASCADE; CREATE TABLE open_lease (key uuid, lease text)');
is($open->ask(q{SELECT status FROM keypool_try_select('cooling')}), 'no_key', 'before the restore there is no key');
system_or_bail(@psql, '-d', 'reached', '-f', "$folder/data.sql");
is($open->ask(q{SELECT status FROM keypool_try_select('cooling')}), 'cooling', 'a session that was open sees what was restored');
$open->close;

# Meters alone, over keys that have been used since: they go back to what they were.
my ($key) = $node->safe_psql('custom', q{SELECT id FROM keypool_list_keys('full')});
$node->safe_psql('custom', "SELECT keypool_record('$key', 1000)");
my $reverted = open_session($node, 'custom');
is($reverted->ask(q{SELECT total_requests FROM keypool_list_keys('full')}), 4, 'a key is used after the restore');
system_or_bail('pg_restore', @to, '--exit-on-error', '--data-only', '--schema', 'keypool', '--table', 'key_meters', '-d', 'custom',
    "$folder/custom.dump");
is($reverted->ask(qq{SELECT total_requests FROM keypool_list_keys('full'); SELECT keypool_record('$key', 1); SELECT total_requests FROM keypool_list_keys('full')}),
    "2\nt\n3", 'meters that are restored over their keys take their place');
$reverted->close;

$node->stop;
done_testing();
