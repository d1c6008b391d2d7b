# 026_changing_keys.pl - keys that change while others are used: what a call reads does not grow with the changes beside
# it, and a change of many keys reads each of them a few times.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('changing', conf => "fsync = off\n");

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub add_keys {
    my ($provider, $count) = @_;
    value("INSERT INTO keypool.provider_keys (provider_id, key_label, key_value) SELECT '$provider', i, 'sk-' || i FROM generate_series(1, $count) i");
    return;
}

# How many rows of keypool's tables a statement reads, in a session that may have done others. Its answer goes to $answer.
sub rows_read {
    my ($session, $statement, $answer) = @_;
    my $count = q{SELECT 'read ' || coalesce(sum(seq_tup_read + idx_tup_fetch), 0) FROM pg_stat_xact_user_tables WHERE schemaname = 'keypool'};
    my $said = $session->ask("BEGIN; $count; $statement; $count; COMMIT");
    my ($before, $result, $after) = $said =~ /^read (\d+)\n(.*)\nread (\d+)$/s or return;
    $$answer = $result;
    return $after - $before;
}

# A load of selections in other sessions, and many changes by one statement.
for my $count (2000, 4000) {
    add_keys('many', $count);
    my $load = begin_load($node, q{SELECT status FROM keypool_try_select('many');}, '-c', 2, '-T', 60);
    my $session = open_session($node);
    is($session->ask(q{SELECT status FROM keypool_try_select('many')}), 'ok', 'a session has the provider in mind');
    for my $change (
        q{SELECT count(keypool_toggle_key(id, false)) FROM keypool.provider_keys},
        q{SELECT count(keypool_toggle_key(id, true)) FROM keypool.provider_keys},
        q{SELECT count(keypool_delete_key(id)) FROM keypool.provider_keys},
    ) {
        my $rows = rows_read($session, $change, \my $changed);
        is($changed, $count, $change);
        cmp_ok($rows, '<=', 8 * $count, "... of $count keys reads each a few times") or diag($rows);
    }
    $session->close;
    $load->{run}->signal('TERM');
    $load->{run}->finish;
    is($load->{errors}, '', 'and no selection beside them fails');
}

# A writer without a pause: it adds, updates, deletes and heals, each in a transaction of its own.
my $keys = 10_000;
my $calls = rounds(30, 500);
add_keys('busy', $keys);
my $id = value(q{SELECT id FROM keypool.provider_keys WHERE key_label = '1'});
value(q{CREATE SEQUENCE changes});
for (['a tested', 'second', 'off'], ['an untested', 'third', 'on']) {
    my ($server, $primary, $untested) = @$_;
    value("ALTER DATABASE postgres SET keypool.test_untested_server = $untested");
    my $writer = begin_load($node, join("\n",
        q{SELECT keypool_add_key('busy', 'added', 'sk-added-' || change) FROM nextval('changes') change;},
        q{UPDATE keypool.provider_keys SET priority = 1 WHERE id = (SELECT id FROM keypool.provider_keys ORDER BY id LIMIT 1 OFFSET 100 * random());},
        q{DELETE FROM keypool.provider_keys WHERE id = (SELECT id FROM keypool.provider_keys WHERE key_label <> '1' ORDER BY id LIMIT 1 OFFSET 100 * random());}),
        '-c', 1, '-T', 600);
    my @old_master_keys = split /\n/, slurp_file(keyring_of($node));
    write_keyring(keyring_of($node), new_master_key($primary), @old_master_keys);
    my $healer = begin_load($node, 'CALL keypool_heal_in_batches(10);', '-c', 1, '-T', 600);
    my $session = open_session($node);
    $session->ask(q{SET statement_timeout = '8s'});
    my %call = (
        'a selection' => [ q{SELECT status FROM keypool_try_select('busy')}, 'ok', $calls ],
        'a peek' => [ q{SELECT status FROM keypool_peek('busy')}, 'ok', $calls ],
        # They find their key alone, and load the others only after so many calls between two changes.
        'a record' => [ "SELECT keypool_record('$id', 1)", 't', $calls / 16 ],
        'a 429' => [ "SELECT keypool_mark_429('$id', 1) > now()", 't', $calls / 16 ],
    );
    for my $name (sort keys %call) {
        my ($statement, $expected, $loads) = @{ $call{$name} };
        my ($failed, $most, $all) = (0, 0, 0);
        my $before = value(q{SELECT last_value FROM changes});
        for (1 .. $calls) {
            my $rows = rows_read($session, $statement, \my $answer);
            ++$failed unless defined $rows && $answer eq $expected;
            $most = $rows if defined $rows && $rows > $most;
            $all += $rows // 0;
        }
        my $changes = value(q{SELECT last_value FROM changes}) - $before;
        is($failed, 0, "$name is answered while keys change in $server server") or diag($session->messages);
        # Of each key its configuration and its meter; some keys more, which were added meanwhile.
        cmp_ok($most, '<=', 2.1 * $keys, "... and reads no more than one load") or diag($most);
        cmp_ok($all, '<=', 2.1 * $keys * $loads + 2 * $calls, "... all of them together " . int($loads)) or diag($all);
        cmp_ok($changes, '>', 0, '... in between changes');
        experiment("$name of $keys keys beside a writer in $server server", "$calls calls, $changes times three changes", "$failed failed, $most rows read at most");
    }
    $session->close;
    for my $load ($writer, $healer) {
        $load->{run}->signal('TERM');
        $load->{run}->finish;
        unlike($load->{errors}, qr/ERROR/, 'no change fails');
    }
    cmp_ok(value("SELECT count(*) FROM keypool.provider_keys WHERE key_value LIKE 'enc:v1:$primary:%'"), '>', $keys / 2, 'and keys were sealed anew');
}
$node->stop;
done_testing();
