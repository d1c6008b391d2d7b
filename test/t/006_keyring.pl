# 006_keyring.pl - broken keyrings and broken secrets are named and never shown; mending and rotating need no restart.

use strict;
use warnings FATAL => 'all';

use File::Spec;
use KeypoolCluster;
use MIME::Base64 qw(decode_base64);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node    = new_cluster('keyring', conf => "log_min_messages = debug1\nlog_min_error_statement = panic\n");
my $keyring = keyring_of($node);
my ($primary) = split /\n/, slurp_file($keyring);
my @master_keys = ($primary);
my $select = q{SELECT key_label, key_value FROM keypool_select('pool')};

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

value(q{SELECT keypool_add_key('pool', 'one', 'sk-marker-one')});
my $open = open_session($node);
is($open->ask($select), 'one|sk-marker-one', 'a keyring opens what it sealed');

# Keyrings that cannot be used. None says what is in it.
my $other_key = new_master_key('other');
my $short     = 'c2stbWFya2VyLXNob3J0MDA=';
push @master_keys, $other_key, "short:$short";
my @broken = (
    [ 'missing',        sub { unlink $keyring },                                    qr/cannot be read: No such file/ ],
    [ 'unreadable',     sub { chmod 0000, $keyring },                               qr/cannot be read: Permission denied/ ],
    [ 'group-readable', sub { chmod 0640, $keyring },                               qr/group or world access/ ],
    [ 'world-readable', sub { chmod 0604, $keyring },                               qr/group or world access/ ],
    [ 'a folder',       sub { unlink $keyring; mkdir $keyring, 0700 },              qr/not a regular file/ ],
    [ 'empty',          sub { write_keyring($keyring) },                            qr/holds no master key/ ],
    [ 'only comments',  sub { write_keyring($keyring, '# none', '', "#$other_key") }, qr/holds no master key/ ],
    [ 'too large',      sub { write_keyring($keyring, $primary, ('# ' . 'x' x 1000) x 70) }, qr/larger than 65536 bytes/ ],
    [ 'malformed',      sub { write_keyring($keyring, $primary, 'sk-marker-line') }, qr/line 2 .*not of the form id:base64/ ],
    [ 'with a bad id',  sub { write_keyring($keyring, '', "sk marker:$short") },    qr/line 2 .*has an id that is not/ ],
    [ 'with an id twice', sub { write_keyring($keyring, $primary, $other_key, '# x', $primary) }, qr/line 4 .*repeats an id/ ],
    [ 'with a short key', sub { write_keyring($keyring, "primary:$short", $other_key) }, qr/line 1 .*does not hold 32 bytes/ ],
    [ 'with a cut key',   sub { write_keyring($keyring, $other_key, substr($primary, 0, -1)) }, qr/line 2 .*does not hold 32 bytes/ ],
    [ 'with blanks in a key', sub { write_keyring($keyring, $primary =~ s/:(....)/:$1 /r) }, qr/line 1 .*does not hold 32 bytes/ ],
);
for my $case (@broken) {
    my ($name, $break, $message) = @$case;
    $break->();
    my $fresh = open_session($node);
    my $said  = $fresh->failure($select);
    like($said, qr/^ERROR:  KP401: [^\n]*$message/m, "a keyring that is $name: a new session says so");
    unlike($said, qr/WARNING|skipped/, '... and says nothing against the keys');
    my $refused = $open->failure(q{SELECT keypool_add_key('pool', 'two', 'sk-marker-two')});
    like($refused, qr/^ERROR:  KP401: [^\n]*$message/m, '... nothing is sealed');
    unlike("$said$refused", qr/marker|\Q$short\E|\Q@{[substr($primary, 8)]}\E|\Q@{[substr($other_key, 6)]}\E/, '... what is in it is not shown');
    is($open->ask($select), 'one|sk-marker-one', '... a session that had loaded it goes on');
    rmdir $keyring if -d $keyring;
    write_keyring($keyring, $primary);
    is($fresh->ask($select), 'one|sk-marker-one', '... mended, the session that failed works');
    $fresh->close;
}
$node->append_conf('postgresql.conf', "keypool.master_key_file = ''\n");
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT current_setting('keypool.master_key_file') = ''}), 'the setting is emptied');
like(failure_of($node, $select), qr/^ERROR:  KP401: [^\n]*keypool\.master_key_file is not set.*^HINT: /ms, 'without a setting a hint says what to do');
$node->append_conf('postgresql.conf', "keypool.master_key_file = '$keyring'\n");
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT current_setting('keypool.master_key_file') <> ''}), 'the setting is back');
is(value($select), 'one|sk-marker-one', 'and works without a restart');

# Rotation, with sessions that stay open and a load that goes on all the while.
append_to_file($node->basedir . '/load.sql', "SELECT key_value FROM keypool_select('pool');\n");
my $load = IPC::Run::start([ load_command($node, '-c', 4, '-R', 400, '-T', 3, '-f', $node->basedir . '/load.sql') ],
    '>', \my $output, '2>', \my $errors);
my $idle = open_session($node);
$idle->ask($select);
is($open->ask($select), 'one|sk-marker-one', 'before the rotation');
my $new = new_master_key('new');
push @master_keys, $new;
write_keyring($keyring, '# rotated', $new, $primary);
$open->ask(q{SELECT keypool_add_key('pool', 'two', 'sk-marker-two', priority => -1)});
is(value(q{SELECT key_value LIKE 'enc:v1:new:%' FROM keypool.provider_keys WHERE key_label = 'two'}), 't', 'the first line seals at once');
is($idle->ask($select), 'two|sk-marker-two', 'a session with the old keyring opens what was sealed under the new key');
is(value(q{SELECT * FROM keypool_heal()}), '1|0', 'keypool_heal seals under the new key what was under the old one');
is(value(q{SELECT bool_and(key_value LIKE 'enc:v1:new:%') FROM keypool.provider_keys}), 't', 'all of it');
is(value(q{SELECT * FROM keypool_heal()}), '0|0', 'and once');
write_keyring($keyring, $new);
sleep(1.1);
is($_->ask($select), 'two|sk-marker-two', 'the old line is removed, and an open session goes on') for $open, $idle;
value(q{SELECT keypool_toggle_key(id, false) FROM keypool_list_keys('pool') WHERE key_label = 'two'});
is($_->ask($select), 'one|sk-marker-one', 'also with the key that was there before') for $open, $idle;
ok($load->finish && $output =~ /actually processed: \d{3,}/, 'a load goes on through the rotation without an error') or diag($errors);

# A line is removed too early, and put back.
write_keyring($keyring, $primary);
sleep(1.1);
my $lacking = qr/^ERROR:  KP401: master key "new" is not in the keyring.*^HINT: .*missing line/ms;
like($open->failure($select), $lacking, 'a session names the master key that is missing');
like(failure_of($node, $select), $lacking, 'a new session too');
write_keyring($keyring, $new);
is($open->ask($select), 'one|sk-marker-one', 'and opens the secret as soon as the line is back');

# Secrets that do not open, because of damage that passed by the trigger: skipped, and warned of once per session and key.
value(q{
    SELECT keypool_add_key('harm', l, 'sk-marker-' || l) FROM unnest('{truncated,cut,altered,swapped,swapped too,lost,bare}'::text[]) l;
    SELECT keypool_add_key('harm', 'sound', 'sk-marker-sound', priority => 1);
    SELECT keypool_add_key('elsewhere', 'sound', 'sk-marker-elsewhere');
    ALTER TABLE keypool.provider_keys DISABLE TRIGGER before_key_change;
    UPDATE keypool.provider_keys SET key_value = left(key_value, -8) WHERE key_label = 'truncated';
    UPDATE keypool.provider_keys SET key_value = left(key_value, -1) WHERE key_label = 'cut';
    UPDATE keypool.provider_keys SET key_value = overlay(key_value PLACING CASE substr(key_value, 30, 1) WHEN 'A' THEN 'B' ELSE 'A' END FROM 30)
     WHERE key_label = 'altered';
    UPDATE keypool.provider_keys a SET key_value = b.key_value FROM keypool.provider_keys b
     WHERE a.key_label LIKE 'swapped%' AND b.key_label LIKE 'swapped%' AND a.id <> b.id;
    UPDATE keypool.provider_keys SET key_value = replace(key_value, ':new:', ':lost:') WHERE key_label = 'lost';
    UPDATE keypool.provider_keys SET key_value = 'enc:' WHERE key_label = 'bare';
    ALTER TABLE keypool.provider_keys ENABLE ALWAYS TRIGGER before_key_change});
my $harmed = q{SELECT key_label, key_value FROM keypool_select('harm')};
my $careful = open_session($node);
$careful->ask(q{SELECT FROM keypool_select('elsewhere')});
chmod 0644, $keyring;
sleep(1.1);
is($careful->ask($harmed), 'sound|sk-marker-sound', 'while the keyring is not usable, the others are served');
is($careful->messages, '', 'and nothing is said against a key');
chmod 0600, $keyring;
sleep(1.1);
my @ids = sort split /\n/, value(q{SELECT id FROM keypool_list_keys('harm') WHERE key_label <> 'sound'});
for my $session ($open, $idle, $careful) {
    is($session->ask($harmed), 'sound|sk-marker-sound', 'the others are served');
    my $warnings = $session->messages;
    is_deeply([ sort $warnings =~ /^WARNING:  .*?key (\S+) is skipped: /mg ], \@ids, 'every secret that does not open is warned of');
    unlike($warnings, qr/marker|enc:/, 'and not shown');
    is($session->failure($harmed), '', 'once in a session');
}
$careful->close;
is(value(q{SELECT bool_and(window_requests = 0 AND open_reservations = 0) FROM keypool_list_keys('harm') WHERE key_label <> 'sound'}),
    't', 'a key that does not open loses nothing');

# None is left: the answer depends on whether a master key would help.
$open->ask(q{SELECT keypool_toggle_key(id, false) FROM keypool_list_keys('harm') WHERE key_label = 'sound'});
like($open->failure($harmed), qr/^ERROR:  KP401: master key "lost" is not in the keyring/m, 'if a master key is missing, KP401 names it');
$open->ask(q{SELECT keypool_delete_key(id) FROM keypool_list_keys('harm') WHERE key_label = 'lost'});
like($open->failure($harmed), qr/^ERROR:  KP404: .*^DETAIL: .*decrypted/ms, 'else KP404 says that nothing can be decrypted');
is($open->ask(q{SELECT status, retry_after_ms FROM keypool_try_select('harm')}), 'no_key|', 'and keypool_try_select says no_key');

# keypool_heal.
write_keyring($keyring, 'broken');
like($open->failure('SELECT keypool_heal()'), qr/^ERROR:  KP401: /, 'keypool_heal refuses a broken keyring');
is(value(q{SELECT bool_and(is_active) FROM keypool_list_keys('harm') WHERE key_label <> 'sound'}), 't', 'and switches nothing off');
write_keyring($keyring, $new);
is($open->ask('SELECT * FROM keypool_heal()'), '0|6', 'keypool_heal counts what does not open');
is(() = $open->messages =~ /^WARNING:  .*is noted as unopened: /mg, 6, 'and warns of it');
is(value(q{SELECT count(*) FROM keypool.provider_keys WHERE unopened_since IS NOT NULL}), 6, 'and notes it');
is(value(q{SELECT string_agg(key_label, ' ' ORDER BY key_label) FROM keypool_list_keys() WHERE NOT is_active}), 'sound two', 'and switches nothing off');
is($idle->ask(q{SELECT key_value FROM keypool_select('elsewhere')}), 'sk-marker-elsewhere', 'and nothing else');
value(q{UPDATE keypool.provider_keys SET key_value = 'sk-marker-mended' WHERE key_label = 'altered'});
is($idle->ask($harmed), 'altered|sk-marker-mended', 'a secret that is given anew is served');

# Every way in, also the ones that fail: no secret and no master key in a page, in the log of changes or in the log.
my $file = File::Spec->rel2abs($node->basedir . '/keys.copy');
append_to_file($file, "ways\tcopied\tsk-marker-copied\n");
value(qq{
    SELECT keypool_add_key('ways', 'long', 'sk-marker-' || repeat('long', 2000));
    INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('ways', 'sk-marker-inserted');
    UPDATE keypool.provider_keys SET key_value = 'sk-marker-updated-' || id WHERE key_value LIKE 'enc:%' AND provider_id = 'ways';
    COPY keypool.provider_keys (provider_id, key_label, key_value) FROM '$file';
    BEGIN; INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('ways', 'sk-marker-undone'); ROLLBACK});
for my $statement (
    q{INSERT INTO keypool.provider_keys (provider_id, key_value, max_rpm) VALUES ('ways', 'sk-marker-failing', -1)},
    q{INSERT INTO keypool.provider_keys (id, provider_id, key_value) SELECT id, 'ways', 'sk-marker-failing' FROM keypool.provider_keys},
    q{UPDATE keypool.provider_keys SET key_value = 'sk-marker-failing', max_tpm = -1},
    q{UPDATE keypool.provider_keys SET key_value = 'sk-marker-failing', provider_id = 'another'},
    q{SELECT keypool_add_key('ways', 'failing', 'sk-marker-failing', max_rpm => -1)},
    q{SELECT keypool_add_key('ways', 'failing', 'sk-marker-' || repeat('x', 9000))},
    q{SELECT keypool_set_secret(id, 'Bearer sk-marker-failing') FROM keypool_list_keys('ways')},
    q{SELECT keypool_add_key('ways', 'failing', 'sk-marker-failing', settings => '{"max_rpm": -1}')},
    q{SELECT keypool_release(id, 'no lease') FROM keypool_list_keys('ways')},
) {
    my $said = $open->failure($statement);
    like($said, qr/^ERROR:  \w{5}: /, "refused: $statement");
    unlike($said, qr/marker/, 'an error does not show a secret');
}
is(value(q{SELECT count(*) FROM keypool_list_keys('ways') k, keypool_try_select('ways', k.total_requests) s WHERE s.key_value LIKE 'sk-marker-%'}), 3,
    'the secrets are there');
value('CHECKPOINT');
$_->close for $open, $idle;
$node->stop;
my $data = $node->data_dir;
my $log  = slurp_file($node->logfile);
ok(scalar(grep { m{^base/} } files_with('enc:v1:new:', $data)), 'sealed secrets are in a table');
ok(scalar(grep { m{^pg_wal/} } files_with('enc:v1:new:', $data)), 'and in the log of changes');
is(join(' ', files_with('sk-marker', $data)), '', 'plain ones are nowhere');
unlike($log, qr/sk-marker/, 'nor in the log');
like($log, qr/line 2 of the keyring is not of the form/, 'which says what is wrong with a keyring');
my @shown = grep { my $key = s/.*://r; index($log, $key) >= 0 || files_with($key, $data) || files_with(decode_base64($key), $data) } @master_keys;
is("@shown", '', 'no master key is in a file but the keyring');

done_testing();
