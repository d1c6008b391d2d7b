# 049_affinity.pl - conversations keep to their keys: when a key goes and comes back, by weight, and when their key is full.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node          = new_cluster('affinity');
my $conversations = 10_000;
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

value(qq{
    SELECT count(keypool_add_key('p', 'k' || i, 'sk-' || i, settings => jsonb_build_object('account', 'org/' || i / 4, 'weight', 1 + i % 3))) FROM generate_series(0, 19) i;
    CREATE TABLE kept (at text, conversation integer, key text);
    CREATE FUNCTION ask(name text, again text DEFAULT '') RETURNS void LANGUAGE sql AS \$\$
        INSERT INTO kept SELECT name, c, s.key_label FROM generate_series(1, $conversations) c, LATERAL keypool_peek('p', affinity => 'conversation ' || c) s \$\$;
    SELECT ask('before')});
my $other = q{SELECT count(*) FROM kept a JOIN kept b USING (conversation) WHERE a.at = '%s' AND b.at = '%s' AND a.key <> b.key};

is(value(q{SELECT count(*) FROM (SELECT count(*) AS got, 1 + substr(key, 2)::int % 3 AS weight FROM kept GROUP BY key) k
    WHERE abs(got - weight * } . "$conversations / 39.0) > 0.05 * $conversations * weight / 39.0 + 3 * sqrt($conversations * weight / 39.0)"), 0,
    'each of 20 keys has the share of conversations that its weight says');
value(q{SELECT keypool_toggle_key(keypool_key('p', 'k7'), false); SELECT ask('without')});
is(value(sprintf($other, 'before', 'without') . q{ AND a.key <> 'k7'}), 0, 'when a key goes, no conversation of another key moves');
is(value(q{SELECT count(*) FROM kept WHERE at = 'without' AND key = 'k7'}), 0, 'its own do');
value(q{SELECT keypool_toggle_key(keypool_key('p', 'k7'), true); SELECT ask('again')});
is(value(sprintf $other, 'before', 'again'), 0, 'and come back with it');

# In another session, and where keys are really selected.
my ($mine) = value(q{SELECT key FROM kept WHERE at = 'before' AND conversation = 1});
is(value(q{SELECT string_agg(DISTINCT key_label, ' ') FROM generate_series(1, 50) i, LATERAL keypool_select('p', i * 0, affinity => 'conversation 1')}), $mine,
    'fifty requests of a conversation go to its key');

# A key that is full: its conversations spread over its account, and come back.
value(qq{SELECT keypool_update_key(keypool_key('p', '$mine'), '{"max_rpm": 1}')});
my $account = value(qq{SELECT account FROM keypool_list_keys('p') WHERE key_label = '$mine'});
value(q{SELECT ask('full')});
is(value(qq{SELECT count(*) FROM kept WHERE at = 'full' AND key = '$mine'}), 0, 'a key that is full serves none');
is(value(sprintf($other, 'before', 'full') . qq{ AND a.key <> '$mine'}), 0, 'the conversations of the others stay');
is(value(qq{SELECT string_agg(DISTINCT account, ' ') FROM kept a JOIN kept b USING (conversation) JOIN keypool_list_keys('p') k ON key_label = b.key
    WHERE a.at = 'before' AND a.key = '$mine' AND b.at = 'full'}), $account, 'and its own go to the keys of its account');
cmp_ok(value(qq{SELECT count(DISTINCT b.key) FROM kept a JOIN kept b USING (conversation) WHERE a.at = 'before' AND a.key = '$mine' AND b.at = 'full'}), '>', 1, 'more than one of them');
value(q{SET keypool.test_now = '2090-01-01'; SELECT ask('later')});
is(value(sprintf $other, 'before', 'later'), 0, 'a minute later all are back');
experiment('conversations that keep to 20 keys', "$conversations conversations, a key that goes, comes back, and is full", '0 of another key moved');

$node->stop;
done_testing();
