# 053_shown_always.pl - what operators look at never fails, whatever is wrong with the keyring or a key, and whatever is changed meanwhile.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('shown');
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

value(q{
    CREATE ROLE watcher LOGIN; SELECT keypool_grant('watcher', 'monitor');
    SELECT keypool_add_key(p, 'k' || i, concat('sk-shown-', p, i), max_rpm => 50, settings => '{"account": "org/app"}') FROM unnest(ARRAY['p', 'q']) p, generate_series(1, 5) i;
    SELECT keypool_set_quota(p, 'org', '{"account": "org", "max_rpm": 100}') FROM unnest(ARRAY['p', 'q']) p;
    SELECT keypool_record(key_id, 7, lease) FROM generate_series(1, 20), keypool_select('p')});

# Every view and function that shows something, as a role with the right `monitor` and no other.
my @views = split /\n/, value(q{SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'keypool'::regnamespace AND relkind = 'v' AND relname <> 'key_state' ORDER BY relname});
is("@views", join(' ', map { "keypool.$_" } qw(doctor events key_usage_window keyring keys metrics open_calls status)), 'these are the views');
my @shown = ((map { "SELECT * FROM $_" } @views),
    q{SELECT * FROM keypool_metrics(by_key => true)}, q{SELECT * FROM keypool_list_quotas()}, q{SELECT * FROM keypool_status('p')},
    (map { qq{SELECT * FROM keypool_provider_usage(by => '$_')} } qw(minute hour day)), q{SELECT u.* FROM keypool_list_keys() k, keypool_usage(k.id, by => 'hour') u},
    q{SELECT u.* FROM keypool_list_quotas() q, keypool_usage(q.id, by => 'day') u}, q{SELECT * FROM keypool_explain_select('p')});
my @failed;
sub look { return grep { failure_of_watcher($_) } @shown; }

sub failure_of_watcher {
    my ($statement) = @_;
    my ($code, $out, $error) = $node->psql('postgres', "$statement", extra_params => [ '-U', 'watcher' ], on_error_stop => 1);
    diag("$statement: $error") if $code != 0;
    push @failed, $out if $out =~ /sk-shown/;
    return $code != 0;
}
is(scalar(look()), 0, 'all is well, and all is shown');

# Nobody may read a table.
my @tables = split /\n/, value(q{SELECT oid::regclass FROM pg_class WHERE relnamespace = 'keypool'::regnamespace AND relkind IN ('r', 'S') AND (has_table_privilege('watcher', oid, 'SELECT') OR has_any_column_privilege('watcher', oid, 'SELECT'))});
is("@tables", '', 'the watcher may read no table');

value(q{UPDATE keypool.provider_keys SET expires_at = now() - interval '1 hour' WHERE key_label = 'k1'});
is(scalar(look()), 0, 'with keys that have expired');
value(q{ALTER TABLE keypool.provider_keys DISABLE TRIGGER before_key_change;
    UPDATE keypool.provider_keys SET key_value = 'enc:v1:primary:' || repeat('A', 60) WHERE key_label = 'k2';
    UPDATE keypool.provider_keys SET key_value = 'enc:v1:gone:' || repeat('A', 60) WHERE key_label = 'k3';
    ALTER TABLE keypool.provider_keys ENABLE ALWAYS TRIGGER before_key_change});
is(scalar(look()), 0, 'with secrets that do not open');
value(q{DELETE FROM keypool.key_meters WHERE key_id = (SELECT id FROM keypool.provider_keys WHERE key_label = 'k4' LIMIT 1); DELETE FROM keypool.refusals WHERE provider_id = 'q'});
is(scalar(look()), 0, 'with a meter and a row of refusals that are missing');
rename keyring_of($node), keyring_of($node) . '.away' or die;
is(scalar(look()), 0, 'with the keyring gone');
rename keyring_of($node) . '.away', keyring_of($node) or die;

# While keys and quotas come, change and go.
my ($readers, $seconds) = (4, rounds(5, 60));
my $until = time + $seconds;
my $change = $node->background_psql('postgres', on_error_stop => 1);
$change->query_safe(q{SET client_min_messages = error});  # keys whose secrets do not open
my @runs = map {
    my $script = $node->basedir . "/look$_.sql";
    append_to_file($script, join('', map { "$_;\n" } @shown) x 2);
    IPC::Run::start([ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-U', 'watcher', '-f', $script, '-T', $seconds, 'postgres' ], '>', '/dev/null', '2>', \my $errors);
} 1 .. $readers;
my $changes = 0;
while (time < $until) {
    $change->query_safe($_) for (
        q{SELECT keypool_set_quota('p', 'more', '{"max_rpd": 5}')}, q{SELECT keypool_add_key('r', 'new', 'sk-shown-r'), keypool_add_key('p', 'new', 'sk-shown-new')},
        q{SELECT keypool_update_key(id, '{"max_rpm": 60}') FROM keypool_list_keys('q')}, q{SELECT status FROM keypool_try_select('p')},
        q{SELECT keypool_delete_quota('p', 'more')}, q{SELECT keypool_delete_key(id) FROM keypool_list_keys() WHERE key_label = 'new'});
    ++$changes;
}
$change->quit;
is(scalar(grep { !$_->finish } @runs), 0, "$readers readers see no error while keys and quotas come and go");
cmp_ok($changes, '>', 5, "... which they did ($changes rounds)");
is("@failed", '', 'no secret was shown');
experiment('looking while things change', "$readers readers, $seconds s, $changes rounds of changes", '0 errors');
$node->stop;
done_testing();
