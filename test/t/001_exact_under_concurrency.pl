# 001_exact_under_concurrency.pl - many sessions at once get exactly what the limits allow, and equal keys equally.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use List::Util qw(max min sum);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $sessions = 64;
my $node     = new_cluster('concurrent');
$node->safe_psql('postgres', q{
    SELECT count(keypool_add_key('requests', 'r' || i, 'sk-r' || i, max_rpm => 10)) FROM generate_series(1, 10) i;
    SELECT count(keypool_add_key('tokens', 't' || i, 'sk-t' || i, max_tpm => 1000)) FROM generate_series(1, 10) i;
    SELECT count(keypool_add_key('slow', 's' || i, 'sk-s' || i, max_rpm => 10)) FROM generate_series(1, 3) i;
    SELECT count(keypool_add_key('equal', 'e' || i, 'sk-e' || i)) FROM generate_series(1, 10) i;
    SELECT keypool_add_key('contended', 'c', 'sk-c');
    CREATE UNLOGGED TABLE calls (pool text, key text, status text, wait bigint, asked timestamptz, answered timestamptz);
});

my $call = q{INSERT INTO calls SELECT '%s', key_label, status, retry_after_ms, statement_timestamp(), clock_timestamp() }
  . q{FROM keypool_try_select('%s', %d)};

# A pgbench script that calls a pool and logs what it was told.
sub script {
    my ($pool, $tokens) = @_;
    my $path = $node->basedir . "/$pool.sql";
    append_to_file($path, sprintf("$call;\n", $pool, $pool, $tokens // 0)) unless -e $path;
    return $path;
}

# All sessions at once, each so many calls.
sub rush {
    my ($pool, $calls, $tokens) = @_;
    system_or_bail(load_command($node, '-c', $sessions, '-j', 2, '-M', 'prepared', '-t', $calls, '-f', script($pool, $tokens)));
    return;
}

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub per_key {
    my ($pool, $since) = @_;
    return value("SELECT string_agg(n::text, ' ') FROM (SELECT count(*) AS n FROM calls"
          . " WHERE pool = '$pool' AND status = 'ok' AND asked >= '$since' GROUP BY key) k");
}

# The most grants of one key in any 60 seconds. A grant happened between `asked` and `answered`.
sub most_in_sixty_seconds {
    my ($pool) = @_;
    return value(qq{
        SELECT max(n) FROM (
            SELECT (SELECT count(*) FROM calls later WHERE later.pool = c.pool AND later.key = c.key AND later.status = 'ok'
                    AND later.answered >= c.answered AND later.answered < c.asked + interval '60 s') AS n
            FROM calls c WHERE c.pool = '$pool' AND c.status = 'ok') w});
}

my $ten = join ' ', (10) x 10;

# The order of equal keys.
# Numbers of calls that no session can share out by itself alone.
my @counts;
my $calls = 0;
for my $each (1, 4, 7, 29) {
    rush('equal', $each);
    $calls += $each * $sessions;
    @counts = split / /, per_key('equal', '-infinity');
    is(sum(@counts), $calls, 'keys without a limit serve every call');
    cmp_ok(max(@counts) - min(@counts), '<=', 1, "after $calls calls equal keys were granted equally often over all sessions")
      or diag("grants per key: @counts");
}
is(scalar @counts, 10, 'every equal key is granted');

# No reservation of a key that all sessions want at once gets lost.
rush('contended', 1000);
is(value(q{SELECT window_requests, open_reservations FROM keypool_list_keys('contended')}), join('|', (1000 * $sessions) x 2),
    'every one of 64000 reservations of one key is counted');

experiment('64 sessions on 10 equal keys', sum(@counts) . ' grants', max(@counts) - min(@counts) . ' between the most and the least');

# A trickle beside all that follows, so that the window moves while it is full.
my $trickle = IPC::Run::start([ load_command($node, '-c', 4, '-M', 'prepared', '-R', 12, '-T', 66, '-f', script('slow')) ],
    '>', \my $output, '2>', \my $errors);

rush('requests', 10);
rush('tokens', 10, 100);
is(per_key('requests', '-infinity'), $ten, '64 sessions at once get exactly the 100 requests of 10 keys, 10 of each');
is(per_key('tokens', '-infinity'), $ten, '64 sessions at once get exactly the 10000 tokens of 10 keys, 1000 of each');
is(value(q{SELECT bool_and(status = 'limited' AND wait BETWEEN 55000 AND 61000) FROM calls
           WHERE pool IN ('requests', 'tokens') AND status <> 'ok'}),
    't', 'every call that gets nothing is told how long to wait');
is(value(q{SELECT bool_and(window_requests = 10 AND open_reservations = 10) FROM keypool_list_keys('requests')}),
    't', 'a call that gets nothing leaves no trace');

# A key is free again at the moment that was foretold, and not before: calls from shortly before until one is granted.
my ($earliest, $latest) = split /\|/, value(q{
    SELECT clock_timestamp() + (retry_after_ms - 1) * interval '1 ms', clock_timestamp() + retry_after_ms * interval '1 ms'
    FROM keypool_peek('requests')});
value(qq{
    DO \$\$
    DECLARE
        asked timestamptz;
        told text;
    BEGIN
        PERFORM pg_sleep(extract(epoch FROM timestamptz '$earliest' - clock_timestamp()) - 1);
        LOOP
            asked := clock_timestamp();
            INSERT INTO calls SELECT 'requests', key_label, status, retry_after_ms, asked, clock_timestamp()
              FROM keypool_try_select('requests') RETURNING status INTO told;
            EXIT WHEN told = 'ok';
            PERFORM pg_sleep(0.05);
        END LOOP;
    END
    \$\$});
my $polled = "FROM calls WHERE pool = 'requests' AND asked > timestamptz '$earliest' - interval '2 s' AND status";
is(value("SELECT answered >= '$earliest' $polled = 'ok'"), 't', 'nothing is granted before the time foretold');
is(value("SELECT max(asked) <= '$latest' $polled <> 'ok'"), 't', 'nothing is refused after the time foretold');

my $first = value(q{SELECT max(answered) FROM calls
    WHERE pool IN ('requests', 'tokens') AND status = 'ok' AND answered < now() - interval '30 s'});
sleep(value("SELECT greatest(extract(epoch FROM timestamptz '$first' + interval '61 s' - clock_timestamp()), 0)"));
rush('requests', 10);
rush('tokens', 10, 100);
my $again = value("SELECT timestamptz '$first' + interval '1 us'");
is(per_key('requests', $again), $ten, '61 seconds later exactly the same requests again');
is(per_key('tokens', $again), $ten, '61 seconds later exactly the same tokens again');

$trickle->finish or BAIL_OUT("pgbench: $errors");
is(most_in_sixty_seconds('requests'), 10, 'no 60 seconds of a key hold more than its 10 requests');
is(most_in_sixty_seconds('tokens'), 10, 'no 60 seconds of a key hold more than its 1000 tokens');
is(most_in_sixty_seconds('slow'), 10, 'no 60 seconds of a key hold more than its limit, with calls all the while');
cmp_ok(value(q{SELECT count(*) FROM calls WHERE pool = 'slow' AND status = 'ok'}), '>=', 45,
    'what has left the window is used again');

$node->stop;
done_testing();
