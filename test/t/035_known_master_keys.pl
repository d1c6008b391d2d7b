# 035_known_master_keys.pl - a keyring that has another key under a known id is refused, and loses nothing.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node    = new_cluster('known');
my $keyring = keyring_of($node);
my ($right) = split /\n/, slurp_file($keyring);
my $wrong   = new_master_key('primary');
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub said { my ($check) = @_; return value(qq{SELECT translate(result, E'\\n', ' ') FROM keypool_doctor() WHERE "check" = '$check'}); }

is(value('SELECT count(*) FROM keypool.master_keys'), 0, 'a new database knows no master key');
value(q{
    SELECT keypool_add_key('p', 'on', 'sk-on'), keypool_add_key('p', 'for a time', 'sk-time', 1), keypool_add_key('p', 'off', 'sk-off', 2);
    SELECT keypool_toggle_key(id, false, CASE key_label WHEN 'off' THEN NULL ELSE 3600 END) FROM keypool_list_keys('p') WHERE key_label <> 'on'});
is(value('SELECT id, fingerprint FROM keypool.master_keys'), value('SELECT master_key_id, fingerprint FROM keypool.keyring'),
    'the first secret enters the one that seals it');
my $keys   = q{SELECT string_agg(format('%s %s %s %s', key_label, key_value, is_active, inactive_until), ', ' ORDER BY id) FROM keypool.provider_keys};
my $before = value($keys);
my $open   = open_session($node);
is($open->ask(q{SELECT key_value FROM keypool_select('p')}), 'sk-on', 'a session has the right keyring');

# The wrong file after a failover.
my $refused = qr/^ERROR:  KP401: master key "primary" of the keyring is not the one that this database knows by that id\n.*^HINT: /ms;
write_keyring($keyring, $wrong);
my $count = 0;
for my $statement (
    q{SELECT keypool_select('p')}, q{SELECT keypool_heal()}, q{CALL keypool_heal_in_batches()}, q{SELECT keypool_add_key('p', 'x', 'sk-x')},
    q{INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('p', 'sk-y')}, q{UPDATE keypool.provider_keys SET key_value = 'sk-z'})
{
    like(failure_of($node, $statement), $refused, "a new session is refused: $statement");
}
like($open->failure('SELECT keypool_heal()'), $refused, 'and one that has the right one, where it would seal');
is($open->ask(q{SELECT key_value FROM keypool_select('p')}), 'sk-on', 'but it goes on opening');
like(said('keyring'), qr/^master key "primary" of the keyring is not the one/, 'the doctor says so');
like(said('secrets open'), qr/^3 do not, and the keyring is not usable/, 'and blames no key');
write_keyring($keyring, new_master_key('new'), $wrong);
like(failure_of($node, q{SELECT keypool_heal()}), $refused, 'a new line beside it changes nothing');
is(value($keys), $before, 'nothing was changed');
write_keyring($keyring, $right);
is($open->ask(q{SELECT * FROM keypool_heal()}), '0|0', 'the right file is back: nothing to heal');
is(value(q{SELECT key_value FROM keypool_select('p')}), 'sk-on', 'and the keys are served');

# A session that loaded the wrong one before the id was known is refused, too, where it would seal.
value('CREATE DATABASE young');
$node->safe_psql('young', 'CREATE EXTENSION keypool CASCADE');
write_keyring($keyring, $wrong);
my $early = open_session($node, 'young');
is($early->ask(q{SELECT master_key_id FROM keypool.keyring}), 'primary', 'a session has loaded the wrong file');
write_keyring($keyring, $right);
$node->safe_psql('young', q{SELECT keypool_add_key('p', 'a', 'sk-a')});
write_keyring($keyring, $wrong);
$early->ask('SELECT pg_sleep(1.1)');
like($early->failure(q{SELECT keypool_add_key('p', 'b', 'sk-b')}), $refused, 'which another session has made known as another');
$early->close;
write_keyring($keyring, $right);

# A database that knows nothing yet, as after an update from 0.1.0.
value('DELETE FROM keypool.master_keys');
write_keyring($keyring, $wrong);
my $fresh = open_session($node);
is($fresh->ask('SELECT * FROM keypool_heal()'), '0|3', 'heal counts what the wrong keyring does not open');
is(() = $fresh->messages =~ /^WARNING:  .*key \S+ is noted as unopened: /mg, 3, 'and warns of each');
is(value('SELECT count(*), min(unopened_since) = max(unopened_since) FROM keypool.provider_keys WHERE unopened_since IS NOT NULL'), '3|t', 'and notes since when');
is(value($keys), $before, 'and switches nothing off');
is($fresh->ask('SELECT * FROM keypool_heal()'), '0|3', 'again');
is(value('SELECT count(DISTINCT unopened_since) FROM keypool.provider_keys'), 1, 'the first time stays');
my @ids = split /\n/, value('SELECT id FROM keypool.provider_keys');
my $advice = said('secrets open');
like($advice, qr/^3 do not; see keypool\.keyring .*: /, 'the doctor counts them');
like($advice, qr/\Q$_\E/, 'and names them') for @ids;
like($fresh->failure(q{SELECT keypool_add_key('p', 'x', 'sk-x')}), $refused, 'nothing is sealed with a key that opens nothing of what its id has sealed');
is(value('SELECT count(*) FROM keypool.master_keys'), 0, 'and it does not become known');
like($fresh->failure(q{SELECT keypool_select('p')}), qr/^ERROR:  KP404: .*decrypted/ms, 'a selection skips them');
$fresh->close;
write_keyring($keyring, $right);
is(value('SELECT * FROM keypool_heal()'), '0|0', 'the right file is back');
is(value('SELECT count(*) FROM keypool.provider_keys WHERE unopened_since IS NOT NULL'), 0, 'what opens is noted');
is(value($keys), $before, 'and nothing is lost');
is(value('SELECT id, fingerprint FROM keypool.master_keys'), value('SELECT master_key_id, fingerprint FROM keypool.keyring'), 'the key that opened them is known');
is(value(q{SELECT key_value FROM keypool_select('p')}), 'sk-on', 'and they are served');

# A new secret clears the note.
value(q{
    ALTER TABLE keypool.provider_keys DISABLE TRIGGER before_key_change;
    UPDATE keypool.provider_keys SET key_value = left(key_value, -8) WHERE key_label = 'on';
    ALTER TABLE keypool.provider_keys ENABLE ALWAYS TRIGGER before_key_change});
is($open->ask('SELECT * FROM keypool_heal()'), '0|1', 'one is damaged');
value(q{UPDATE keypool.provider_keys SET max_rpm = 100 WHERE key_label = 'on'});
is(value('SELECT count(*) FROM keypool.provider_keys WHERE unopened_since IS NOT NULL'), 1, 'another change leaves the note');
value(q{UPDATE keypool.provider_keys SET key_value = 'sk-again' WHERE key_label = 'on'});
is(value('SELECT count(*) FROM keypool.provider_keys WHERE unopened_since IS NOT NULL'), 0, 'a new secret does not');
is($open->ask(q{SELECT key_value FROM keypool_select('p')}), 'sk-again', 'and is served');

# A heal under a new primary that takes its time holds nobody up.
write_keyring($keyring, new_master_key('second'), $right);
$open->ask('BEGIN');
is($open->ask('SELECT * FROM keypool_heal()'), '3|0', 'heal seals under a new primary, and its transaction goes on');
is(value(q{SET lock_timeout = '5s'; SELECT keypool_add_key('q', 'a', 'sk-q') IS NOT NULL}), 't', 'others seal meanwhile');
$open->ask('COMMIT');
is(value(q{SELECT string_agg(id, ' ' ORDER BY id) FROM keypool.master_keys}), 'primary second', 'both are known');

# Dumped, restored and replicated: what is known stays.
my $dump = $node->basedir . '/known.sql';
system_or_bail('pg_dump', '-f', $dump, $node->connstr('postgres'));
value('CREATE DATABASE restored');
system_or_bail('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('restored'));
my $known = q{SELECT string_agg(id || ' ' || fingerprint || ' ' || first_used_at, ', ' ORDER BY id) FROM keypool.master_keys};
is($node->safe_psql('restored', $known), value($known), 'a restored database knows the same');
is($open->failure(q{INSERT INTO keypool.master_keys SELECT * FROM keypool.master_keys}), '', 'a row that comes again is passed over');
like($open->failure(q{INSERT INTO keypool.master_keys VALUES ('primary', '0123456789abcdef')}), qr/^WARNING:  .*known here with another fingerprint/,
    'one that differs is too, with a warning');
is($node->safe_psql('restored', $known), value($known), 'and what is known stays');

# Meant to be another: the row is deleted.
value(q{DELETE FROM keypool.provider_keys; DELETE FROM keypool.master_keys WHERE id = 'primary'});
write_keyring($keyring, $wrong);
value(q{SELECT keypool_add_key('p', 'new', 'sk-new')});
is(value(q{SELECT key_value FROM keypool_select('p')}), 'sk-new', 'without the row another key may take the id');
$open->close;
$node->stop;
done_testing();
