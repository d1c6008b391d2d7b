# 048_breaker.pl - a key whose breaker comes due is probed by one call at a time over all sessions; what a report has blocked
# nobody is given any more; a proxy that refuses everything does not switch off a pool.

use strict;
use warnings FATAL => 'all';

use JSON::PP qw(decode_json);
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('breaker');
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

#
# One probe at a time.
#
my $sessions = 64;
my $rounds   = rounds(40, 1000);
value(q{SELECT keypool_add_key('probed', 'key', 'sk-key')});
my ($said, $errors) = ('', '');
{
    local $ENV{PGHOST} = $node->host;
    local $ENV{PGPORT} = $node->port;
    IPC::Run::run([ 'python3', 'test/load/prober.py', 'probed', $sessions, $rounds ], '>', \$said, '2>', \$errors);
}
is($errors, '', 'the sessions played their rounds');
my $result = decode_json($said);
is("@{ $result->{wrong} }", '', 'exactly one of all sessions probes a key that comes due, its time doubles, and after its success all are given the key');
is($result->{probes}, $rounds, "in each of $rounds rounds");
is($result->{longest}, 86400, 'and its time is bounded');
experiment("$sessions sessions on a key whose breaker comes due", "$rounds rounds", scalar(@{ $result->{wrong} }) . ' without exactly one probe');

#
# After a report has returned, nobody is given what it blocked.
#
my $trials = rounds(300, 10_000);
value(q{
    SELECT keypool_add_key('blocked', 'key', 'sk-key', priority => -1), keypool_add_key('blocked', 'other', 'sk-other');
    CREATE UNLOGGED TABLE blocks (from_at timestamptz, to_at timestamptz);
    CREATE UNLOGGED TABLE given (asked_at timestamptz, answered_at timestamptz);
    CREATE FUNCTION take() RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        asked timestamptz := clock_timestamp();
        s record;
    BEGIN
        SELECT * INTO s FROM keypool_try_select('blocked');
        IF s.key_label = 'key' THEN INSERT INTO given VALUES (asked, clock_timestamp()); END IF;
        IF s.status = 'ok' THEN PERFORM keypool_release(s.key_id, s.lease); END IF;
    END $$;
    CREATE FUNCTION block(trials integer) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        id uuid := keypool_key('blocked', 'key');
        reported timestamptz;
    BEGIN
        FOR i IN 1..trials LOOP
            IF i % 2 = 0 THEN PERFORM keypool_mark_429(id, 60); ELSE PERFORM keypool_report(id, NULL, 429, 'retry-after: 60'); END IF;
            reported := clock_timestamp();
            PERFORM pg_sleep(0.002);
            INSERT INTO blocks VALUES (reported, clock_timestamp());
            PERFORM keypool_clear_cooldown(id);
            PERFORM pg_sleep(0.001);
        END LOOP;
    END $$;});
my $load = begin_load($node, 'SELECT take()', '-c', $sessions, '-j', 1, '-T', rounds(20, 120));
value("SELECT block($trials)");
my $calls = end_load($load);
cmp_ok(value('SELECT count(*) FROM given'), '>', 0, 'the key is given while it is free');
# Blocks do not overlap: the last one that began before a call is the one that it may have ignored.
is(value('CREATE INDEX ON blocks (from_at);
    SELECT count(*) FROM given, LATERAL (SELECT to_at FROM blocks WHERE from_at < asked_at ORDER BY from_at DESC LIMIT 1) last WHERE answered_at < to_at'),
    0, "and never after it was blocked, in $trials trials");
experiment('blocks are seen by all sessions', "$trials blocks, $sessions sessions, $calls calls", '0 given after the report had returned');

#
# A proxy that answers 401 to everything for a minute.
#
my $keys = 20;
value(qq{
    SELECT count(keypool_add_key('proxied', 'key', 'sk-' || i)) FROM generate_series(1, $keys) i;
    CREATE FUNCTION refuse_all() RETURNS void LANGUAGE plpgsql AS \$\$
    DECLARE
        s record;
    BEGIN
        SELECT * INTO s FROM keypool_try_select('proxied');
        IF s.status = 'ok' THEN PERFORM keypool_report(s.key_id, s.lease, 401); END IF;
    END \$\$;});
end_load(begin_load($node, 'SELECT refuse_all()', '-c', $sessions, '-j', 1, '-T', rounds(5, 60)));
my $by = sub { my ($limit) = @_; return value("SELECT count(*) FROM keypool_explain_select('proxied') WHERE blocked_limit = '$limit'"); };
is($by->('breaker'), $keys / 2, 'half of the keys rest, not one more, though 64 sessions report at once');
is(value(qq{SELECT sum(total_requests) > 0 FROM keypool_list_keys('proxied')}), 't', 'the calls are counted');
# A minute later half of them serve, and the others come back one by one.
my $later = q{SET keypool.test_now = '%s'; SELECT count(DISTINCT s.key_id) FROM generate_series(1, 100) i, LATERAL keypool_try_select('proxied', i * 0) s WHERE status = 'ok'};
my $now = value('SELECT now()::timestamp(0)');
cmp_ok(value(sprintf $later, value(qq{SELECT timestamptz '$now' + interval '90 seconds'})), '>=', $keys / 2, 'those that were suspect serve after a minute');
value(qq{SET keypool.test_now = '@{[ value(qq{SELECT timestamptz '$now' + interval '30 minutes'}) ]}';
    SELECT count(keypool_report(s.key_id, s.lease, 200)) FROM generate_series(1, 100) i, LATERAL keypool_try_select('proxied', i * 0) s WHERE s.status = 'ok'});
is(value(sprintf $later, value(qq{SELECT timestamptz '$now' + interval '31 minutes'})), $keys, 'and all are back without an operator once they work');
experiment('a proxy that answers 401 to everything', "$keys keys, $sessions sessions", $keys / 2 . ' stayed in, 0 were left out for good');

#
# Failures that open a breaker only after several in a row, of many sessions at once.
#
my @opened = map {
    value(qq{
        SELECT count(keypool_add_key('failing $_', 'key', 'sk-$_-' || i)) FROM generate_series(1, 4) i;
        SELECT keypool_set_provider('failing $_', '{"breaker_threshold": 2}');
        CREATE FUNCTION fail_all() RETURNS void LANGUAGE sql AS \$\$
            SELECT keypool_report(s.key_id, s.lease, 500) FROM keypool_try_select('failing $_') s WHERE s.status = 'ok' \$\$;});
    end_load(begin_load($node, 'SELECT fail_all()', '-c', $sessions, '-j', 1, '-t', 20));
    value('DROP FUNCTION fail_all');
    value(qq{SELECT count(*) FROM keypool_list_keys('failing $_') WHERE breaker <> 'closed' AND breaker <> 'suspect'})
} 1 .. rounds(5, 100);
is(scalar(grep { $_ > 2 } @opened), 0, 'failures in a row of many sessions open no more than half of the breakers');
experiment('failures in a row, of 64 sessions at once', scalar(@opened) . ' providers of 4 keys', scalar(grep { $_ > 2 } @opened) . ' with more than half out');

$node->stop;
done_testing();
