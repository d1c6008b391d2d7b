# 003_standby.pl - a hot standby looks and does not touch; after its promotion everything recorded is there.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_cluster('primary', init => { allows_streaming => 1 });

sub on_primary { my ($sql) = @_; return $primary->safe_psql('postgres', $sql); }

my $used    = on_primary(q{SELECT keypool_add_key('pool', 'used', 'sk-used', priority => 1, max_rpm => 5)});
my $spare   = on_primary(q{SELECT keypool_add_key('pool', 'spare', 'sk-spare', priority => 2)});
my $cooling = on_primary(q{SELECT keypool_add_key('cooling', 'cooling', 'sk-cooling')});
on_primary("SELECT keypool_record('$used', 100)");

$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;

sub on_standby { my ($sql) = @_; return $standby->safe_psql('postgres', $sql); }
sub catch_up { return $primary->wait_for_catchup($standby, 'replay'); }

# What is recorded of every key, and its configuration.
my $recorded = q{
    SELECT to_jsonb(k) - 'window_requests' - 'window_tokens' - 'open_reservations' - 'in_flight' FROM keypool_list_keys() k ORDER BY id;
    SELECT u.* FROM keypool_list_keys() k, keypool_usage(k.id) u ORDER BY key_id, window_minute;
    SELECT w.* FROM keypool.key_usage_window w ORDER BY key_id, window_minute;};
my $peek = q{SELECT key_label, status FROM keypool_peek('pool')};

# Sessions that stay open all the while, with the pool in mind.
my $open = open_session($standby);
catch_up();
is($open->ask($peek), 'used|ok', 'keypool_peek works on a standby');
is($open->ask(q{SELECT key_value IS NULL AND lease IS NULL FROM keypool_peek('pool')}), 't', 'and shows neither secret nor lease');

on_primary("SELECT keypool_record('$used', 100) FROM generate_series(1, 4)");
my ($lease) = on_primary(q{SELECT lease FROM keypool_select('pool', 300)});
on_primary("SELECT keypool_record('$spare', 250, '$lease')");
my $until = on_primary("SELECT keypool_mark_429('$cooling', 3000)");
catch_up();
is(on_standby($recorded), on_primary($recorded), 'a standby lists what is recorded');
is($open->ask($peek), 'spare|ok', 'a key that was filled on the primary is full on the standby');
is($open->ask(q{SELECT status, retry_after_ms BETWEEN 2900000 AND 3000000 FROM keypool_peek('cooling')}), 'cooling|t',
    'a cooldown that was started on the primary holds on the standby');

my %writing = (
    keypool_select         => q{keypool_select('pool')},
    keypool_try_select     => q{keypool_try_select('pool')},
    keypool_record         => "keypool_record('$used', 1)",
    keypool_release        => "keypool_release('$spare', '" . on_primary(q{SELECT lease FROM keypool_select('pool')}) . "')",
    keypool_mark_429       => "keypool_mark_429('$used')",
    keypool_clear_cooldown => "keypool_clear_cooldown('$cooling')",
    keypool_add_key        => q{keypool_add_key('pool', 'new', 'sk-new')},
    keypool_toggle_key     => "keypool_toggle_key('$used', false)",
    keypool_delete_key     => "keypool_delete_key('$used')",
    keypool_heal           => 'keypool_heal()',
    keypool_import         => q{keypool_import('pg_class')},
);
for my $function (sort keys %writing) {
    my $failure = failure_of($standby, "SELECT * FROM $writing{$function}");
    like($failure, qr/^ERROR:  25006: .*\b$function\b.*^HINT: .*on the primary/ms, "$function says 25006 on a standby, and names the primary");
    is(scalar($failure =~ /keypool_peek\(\)/), $function =~ /select/ ? 1 : '', 'and keypool_peek() where that answers the question');
}
is($open->ask($peek), 'spare|ok', 'a refused call changes nothing');

# What a failover would lose is told on the primary.
my $failover = q{SELECT translate(result, E'\\n', ' ') FROM keypool_doctor() WHERE "check" = 'failover'};
like(on_primary($failover), qr/^standbys are asynchronous: .*see synchronous_standby_names$/, 'an asynchronous standby is told');
is(on_standby($failover), 'ok', 'but not by itself');
$primary->append_conf('postgresql.conf', "synchronous_standby_names = '*'\n");
$primary->reload;
is(on_primary($failover), 'ok', 'a synchronous one is not');
$primary->append_conf('postgresql.conf', "synchronous_standby_names = ''\n");
$primary->reload;

# Every kind of change on the primary reaches a session of the standby that has the pool in mind.
my $added = on_primary(q{SELECT keypool_add_key('pool', 'added', 'sk-added', priority => 0)});
catch_up();
is($open->ask($peek), 'added|ok', 'a key that was added on the primary is seen on the standby');
on_primary("SELECT keypool_toggle_key('$added', false)");
catch_up();
is($open->ask($peek), 'spare|ok', 'one that was switched off too');
on_primary("UPDATE keypool.provider_keys SET max_rpm = 50 WHERE id = '$used'");
catch_up();
is($open->ask($peek), 'used|ok', 'a limit that was raised too');
on_primary('VACUUM FULL keypool.provider_keys; VACUUM FULL keypool.key_meters');
on_primary("SELECT keypool_record('$used', 100)");
catch_up();
is($open->ask(q{SELECT key_label, total_requests FROM keypool_list_keys('pool') WHERE key_label = 'used'}), 'used|6',
    'tables that were rewritten too');
is($open->ask($peek), 'used|ok', 'and the pool goes on');
on_primary("SELECT keypool_delete_key('$used')");
catch_up();
is($open->ask($peek), 'spare|ok', 'one that was deleted too');

# Promotion.
on_primary("SELECT keypool_record('$spare', 10) FROM generate_series(1, 1000)");
my $before = on_primary($recorded);
catch_up();
$primary->stop;
$standby->promote;
is(on_standby($recorded), $before, 'after promotion everything recorded is there');
is(on_standby(q{SELECT cooldown_until FROM keypool_list_keys('cooling')}), $until, 'cooldowns hold after promotion');
is(on_standby(q{SELECT status FROM keypool_try_select('cooling')}), 'cooling', 'and are obeyed');
is($open->ask(q{SELECT key_label, key_value FROM keypool_select('pool')}), 'spare|sk-spare',
    'a session that was open before selects after promotion');
is($open->ask("SELECT keypool_record('$spare', 10); SELECT total_requests FROM keypool_list_keys('pool') WHERE id = '$spare'"),
    "t\n1002", 'and records');
is($open->ask(q{SELECT keypool_add_key('pool', 'late', 'sk-late', priority => -1) IS NOT NULL; SELECT key_value FROM keypool_select('pool')}),
    "t\nsk-late", 'and adds keys');

$open->close;
$standby->stop;
done_testing();
