# 024_waiting_keys.pl - keys that a session need not look at: none of them is overlooked when it can serve again, and what
# a session remembers stays true and bounded.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# With wal_log_hints, to post a freed key may log a page while the settling that frees it is being logged.
my $node = new_cluster('waiting', conf => "wal_log_hints = on\n");

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# As many sessions as keys, and each key serves one at a time: whoever holds none finds one free at every moment, though
# the others fill and free them without a pause.
value(q{
    CREATE TABLE refused (times bigint);
    CREATE FUNCTION refusals(pool text, calls integer) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE
        refused bigint := 0;
        given record;
    BEGIN
        FOR i IN 1..calls LOOP
            SELECT * INTO given FROM keypool_try_select(pool);
            IF given.status = 'ok' THEN
                PERFORM keypool_release(given.key_id, given.lease);
            ELSE
                refused := refused + 1;
            END IF;
        END LOOP;
        RETURN refused;
    END $$});
for my $count (2, 3, 8) {
    value("SELECT keypool_add_key('duel $count', 'key', 'sk-' || i, priority => i % 2, max_rpm => 1) FROM generate_series(1, $count) i");
    my $calls = int(rounds(60_000, 2_000_000) / $count);
    value('TRUNCATE refused');
    end_load(begin_load($node, "INSERT INTO refused SELECT refusals('duel $count', $calls);", '-c', $count, '-t', 1));
    is(value('SELECT count(*), sum(times) FROM refused'), "$count|0", "$count sessions on $count keys: none is refused while a key is free");
    experiment("$count sessions in turn on as many keys", $count * $calls . ' calls', value('SELECT sum(times) FROM refused') . ' refused while a key was free');
    is(value("SELECT sum(open_reservations) FROM keypool_list_keys('duel $count')"), 0, 'and nothing is left open');
}

# What frees a key that a session has seen to be full or cooling reaches it by its next call.
my ($waits, $frees) = map { open_session($node) } 1 .. 2;
value(q{SELECT keypool_add_key('one', 'key', 'sk-key', max_rpm => 2, max_tpm => 100)});
my $key   = value(q{SELECT id FROM keypool_list_keys('one')});
my $ask   = q{SELECT status FROM keypool_try_select('one', 60)};
my $lease = $frees->ask(q{SELECT lease FROM keypool_select('one', 60)});
is($waits->ask($ask), 'limited', 'a session sees a key full');
$frees->ask("SELECT keypool_record('$key', 61, '$lease')");
is($waits->ask($ask), 'limited', 'a record above the estimate frees nothing');
value(q{SELECT keypool_add_key('two', 'key', 'sk-key', max_rpm => 2, max_tpm => 100)});
$key   = value(q{SELECT id FROM keypool_list_keys('two')});
$ask   = q{SELECT status FROM keypool_try_select('two', 60)};
$lease = $frees->ask(q{SELECT lease FROM keypool_select('two', 60)});
is($waits->ask($ask), 'limited', 'a session sees another key full');
value('CHECKPOINT');
$frees->ask("SELECT keypool_record('$key', 5, '$lease')");
is($waits->ask($ask), 'ok', 'a record below the estimate frees it');
is($waits->ask($ask), 'limited', 'it is full again');
is($waits->ask(q{SELECT status FROM keypool_try_select('two', 101)}), 'too_large', 'which is not said of a request that never fits');
$frees->ask("SELECT keypool_mark_429('$key', 600, '$lease')");    # of a call that was settled: no other is taken for it
is($waits->ask($ask), 'cooling', 'it cools as well');
$frees->ask("SELECT keypool_clear_cooldown('$key')");
is($waits->ask($ask), 'limited', 'and cools no more');
is($waits->ask(q{SELECT status FROM keypool_try_select('two', 0)}), 'limited', 'it has served two requests');
value(q{UPDATE keypool.provider_keys SET max_rpm = NULL WHERE provider_id = 'two'});
is($waits->ask(q{SELECT status FROM keypool_try_select('two', 30)}), 'ok', 'a smaller request fits');
is($waits->ask(q{SELECT status FROM keypool_try_select('two', 30)}), 'limited', 'and another one does not');
is($waits->ask(q{SELECT status FROM keypool_try_select('two', 5)}), 'ok', 'but a still smaller one does');

value(q{SELECT keypool_add_key('better', 'good', 'sk-key', max_rpm => 1), keypool_add_key('better', 'worse', 'sk-worse', priority => 1)});
my ($good, $held) = split /\|/, $frees->ask(q{SELECT key_id, lease FROM keypool_select('better')});
is($waits->ask(q{SELECT key_label FROM keypool_select('better')}), 'worse', 'a worse key serves while the better one is full');
$frees->ask("SELECT keypool_release('$good', '$held')");
is($waits->ask(q{SELECT key_label FROM keypool_select('better')}), 'good', 'and no longer than that');

value(q{SELECT keypool_add_key('sizes', 'good', 'sk-key', max_tpm => 100), keypool_add_key('sizes', 'worse', 'sk-worse', priority => 1)});
my $sizes = q{SELECT key_label FROM keypool_select('sizes', %d)};
is(join(' ', map { $waits->ask(sprintf $sizes, $_) } 60, 60, 41, 10, 31, 30, 0), 'good worse worse good worse good worse',
    'a key with room for small requests only serves those');

# More keys are freed at once than sessions can be told of one by one.
value(q{SELECT keypool_add_key('many', 'key', 'sk-' || i, max_rpm => 1) FROM generate_series(1, 700) i});
$frees->ask(q{CREATE TEMP TABLE given AS SELECT g.* FROM generate_series(1, 700) i, LATERAL keypool_select('many', i * 0) g});
is($waits->ask(q{SELECT status FROM keypool_try_select('many')}), 'limited', '700 keys are full');
$frees->ask(q{SELECT count(keypool_release(key_id, lease)) FROM given});
is($waits->ask(q{SELECT count(DISTINCT key_id) FROM generate_series(1, 700) i, LATERAL keypool_select('many', i * 0)}), 700, 'and all serve when they are free');
is($waits->ask(q{SELECT status FROM keypool_try_select('many')}), 'limited', 'once');

# The table by which sessions tell each other is rewritten, emptied and filled: nobody misses anything.
for my $statement ('VACUUM FULL keypool.wakeups', 'ALTER TABLE keypool.wakeups SET UNLOGGED', 'DELETE FROM keypool.wakeups',
    'TRUNCATE keypool.wakeups', q{INSERT INTO keypool.wakeups SELECT i, decode(repeat('00', 8016), 'hex') FROM generate_series(0, 15) i}) {
    value(q{DELETE FROM keypool.provider_keys WHERE provider_id = 'told'; SELECT keypool_add_key('told', 'key', 'sk-key', max_rpm => 1)});
    my ($given, $number) = split /\|/, $frees->ask(q{SELECT key_id, lease FROM keypool_select('told')});
    $waits->ask(q{SELECT status FROM keypool_try_select('told')});
    value($statement);
    my $still = $waits->ask(q{SELECT status FROM keypool_try_select('told')});
    $frees->ask("SELECT keypool_release('$given', '$number')");
    is($still . ' ' . $waits->ask(q{SELECT status FROM keypool_try_select('told')}), 'limited ok', $statement);
}
is(value(q{SELECT count(*) FROM keypool.wakeups WHERE get_byte(ring, 0) = 1}), 1, 'the filled table is used');

# A change of one provider is no news for those who use others; and what is remembered is bounded.
my $reader = open_session($node);

# How many providers a statement makes the reader load.
sub loads_of {
    my ($statement) = @_;
    $reader->ask('BEGIN');
    my $loads  = q{SELECT pg_stat_get_xact_numscans('keypool.provider_keys_order'::regclass)};
    my $before = $reader->ask($loads);
    $reader->ask($statement);
    my $after = $reader->ask($loads);
    $reader->ask('COMMIT');
    return $after - $before;
}

my ($look_at_one, $look_at_two) = map { "SELECT FROM keypool_peek('$_')" } qw(one two);
is(loads_of($look_at_one), 1, 'a provider is read when it is used first');
is(loads_of($look_at_two), 1, 'and so is another');
is(loads_of($look_at_one), 0, 'and not again');
value(q{UPDATE keypool.provider_keys SET key_label = 'changed' WHERE provider_id = 'two'});
is(loads_of($look_at_one), 0, 'nor when the other one has changed');
is(loads_of($look_at_two), 1, 'which is');

sub memory {
    return $reader->ask(q{SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name ~ '^keypool (cache|tables|pools?|members|keys|orders?|models)$'});
}

sub use_providers {
    my ($from, $to) = @_;
    return "SELECT count(*) FILTER (WHERE status = 'ok') FROM generate_series($from, $to) i, LATERAL keypool_try_select('provider ' || i)";
}
value(q{SELECT count(keypool_add_key('provider ' || i, 'key', 'sk-key')) FROM generate_series(0, 3000) i});
$reader->ask(use_providers(1, 3000));
cmp_ok(memory(), '>', 1_000_000, 'a session remembers all providers that it has used');
$reader->ask('SET keypool.cache_size = 300');
is($reader->ask(use_providers(0, 3000)), 3001, 'with less memory they all serve');
cmp_ok(memory(), '<=', 300 * 1024, 'and it keeps to it');
is(loads_of(use_providers(2991, 3000)), 0, 'those that it used last it still knows');
is(loads_of(use_providers(1, 1)), 1, 'those that it used first it does not');
$reader->ask('SET keypool.cache_size = 240');
my $large = q{SELECT status FROM keypool_try_select('many')};
is($reader->ask($large), 'limited', 'a provider that is larger than that serves');
is(loads_of($large), 0, 'and is kept as long as it is used');
cmp_ok(memory(), '>', 240 * 1024, 'though it takes more');
value(q{SELECT count(keypool_add_key('models', 'key', 'sk-' || i, priority => i)) FROM generate_series(0, 699) i});
value(q{SELECT keypool_mark_429(id, 600, scope => 'model', model => 'blocked') FROM keypool_list_keys('models') WHERE priority = 0});
$reader->ask(q{SET statement_timeout = '60s'});
is($reader->ask(q{SELECT string_agg(priority::text, ' ' ORDER BY i) FROM generate_series(1, 6) i, LATERAL keypool_select('models', model => CASE i % 2 WHEN 0 THEN 'blocked' ELSE 'other' END)}),
    '0 1 0 1 0 1', 'a model that is blocked on a key of such a provider is told apart from others');
$reader->ask(q{RESET statement_timeout});
is($reader->ask(use_providers(1, 30)), 30, 'others serve beside it');
is(loads_of(use_providers(21, 30)), 0, 'and have the memory back');
cmp_ok(memory(), '<=', 240 * 1024, 'all of it');

$node->stop;
done_testing();
