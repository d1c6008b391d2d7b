# 041_turns.pl - keys take turns by their weights, over many sessions, and owe nothing to the clock.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use List::Util qw(max min);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $sessions = 64;
my $node     = new_cluster('turns');
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

$node->safe_psql('postgres', q{
    CREATE UNLOGGED TABLE chosen (number bigserial, pool text, key text);
    SELECT keypool_add_key('weighted', 'w' || w, 'sk-w' || w, settings => format('{"weight": %s}', w)::jsonb) FROM unnest(ARRAY[1, 2, 5]) w;
    SELECT keypool_add_key('heavy', 'light' || i, 'sk-l' || i) FROM generate_series(1, 50) i;
    SELECT keypool_add_key('heavy', 'heavy', 'sk-h', settings => '{"weight": 50}');
    SELECT keypool_add_key('equal', 'e' || i, 'sk-e' || i) FROM generate_series(1, 10) i;
    SELECT keypool_add_key('first', 'f' || i, 'sk-f' || i, max_rpm => 3) FROM generate_series(1, 3) i;
    SELECT keypool_set_provider('first', '{"strategy": "fill_first"}');
});

# How often each key of a pool was selected since a number.
sub counts {
    my ($pool, $since) = @_;
    return map { split /\|/ } split /\n/, value("SELECT key, count(*) FROM chosen WHERE pool = '$pool' AND number > $since GROUP BY key");
}

# All sessions at once, each so many selections.
sub rush {
    my ($pool, $calls) = @_;
    my $script = $node->basedir . "/$pool.sql";
    append_to_file($script, "INSERT INTO chosen (pool, key) SELECT '$pool', key_label FROM keypool_select('$pool');\n");
    system_or_bail(load_command($node, '-c', $sessions, '-j', 2, '-M', 'prepared', '-t', $calls, '-f', $script));
    return;
}

# One session, one call after the other; answers the keys in their order.
sub in_turn {
    my ($pool, $calls) = @_;
    return split /\n/, value("SELECT (SELECT key_label FROM keypool_select('$pool', i - i)) FROM generate_series(1, $calls) i");
}

rush('weighted', 50);
my %weighted = counts('weighted', 0);
my $round    = $sessions * 50 / 8;
for my $weight (1, 2, 5) {
    my $off = abs($weighted{"w$weight"} - $weight * $round);
    cmp_ok($off, '<=', 2, "weight $weight has its share of " . 8 * $round . " selections of $sessions sessions");
}
experiment('weights 1, 2 and 5', "$sessions sessions, " . $sessions * 50 . ' selections', join(', ', map { $weighted{"w$_"} } 1, 2, 5));

rush('equal', 25);
my %equal = counts('equal', 0);
cmp_ok(max(values %equal) - min(values %equal), '<=', 1, 'equal keys never differ by more than one turn');

my ($longest, $run, $before) = (0, 0, '');
my %heavy;
for my $key (in_turn('heavy', 1000)) {
    $run = $key eq $before ? $run + 1 : 1;
    $longest = max($longest, $run);
    $before  = $key;
    $heavy{$key}++;
}
cmp_ok($longest, '<=', 8, "a key of weight 50 beside 50 of weight 1 has at most eight turns in a row ($longest)");
cmp_ok(abs($heavy{heavy} - 500), '<=', 10, 'and half of all turns');
cmp_ok(max(map { $heavy{"light$_"} // 0 } 1 .. 50) - min(map { $heavy{"light$_"} // 0 } 1 .. 50), '<=', 1, 'the others share the rest');

# A key that was off for an hour, whatever the clock says meanwhile.
value("SELECT keypool_toggle_key(id, false) FROM keypool_list_keys('equal') WHERE key_label = 'e1'");
in_turn('equal', 900);
value("SELECT keypool_toggle_key(id, true) FROM keypool_list_keys('equal') WHERE key_label = 'e1'");
my @after = in_turn('equal', 30);
my $back  = grep { $_ eq 'e1' } @after;
cmp_ok($back, '>=', 2, 'a key that was off takes its turns again');
cmp_ok($back, '<=', 4, 'and none of those that it missed');
value(q{
    SET keypool.test_now = '2040-01-01'; SELECT count(keypool_select('equal')) FROM generate_series(1, 5);
    SET keypool.test_now = '2030-01-01'; SELECT count(keypool_select('equal')) FROM generate_series(1, 5)});
my %later;
$later{$_}++ for in_turn('equal', 100);
cmp_ok(max(values %later) - min(values %later), '<=', 1, 'nor does a clock that jumps change whose turn it is');

my @by_id = split /\n/, value("SELECT key_label FROM keypool_list_keys('first') ORDER BY id");
is(join(' ', map { join ',', in_turn('first', 3) } 1 .. 3), join(' ', map { join ',', ($_) x 3 } @by_id), 'fill_first uses one key until it is full');

$node->stop;
done_testing();
