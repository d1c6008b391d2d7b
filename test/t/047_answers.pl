# 047_answers.pl - what providers answer, as test/answers lists it: each answer is of its class, and does what its class
# does, as keypool_explain_answer says and keypool_report does.

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('answers');
my $table = slurp_file('test/answers/answers.tsv');
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# Tabs part the fields, and nothing else means anything.
append_to_file($node->basedir . '/answers.tsv', $table);
value(q{CREATE TABLE answers (provider text, status bigint, error_code text, headers text, body text, class text, wait numeric, source text)});
$node->command_ok([ 'psql', '-X', '-d', $node->connstr('postgres'), '-c', q{\copy answers from '} . $node->basedir . q{/answers.tsv' with (format csv, header, delimiter E'\t', quote E'\x01')} ],
    'the table is read');
value(q{ALTER TABLE answers ADD number serial});
my $answers = value('SELECT count(*) FROM answers');
cmp_ok($answers, '>=', 150, 'and is long enough');

# Each on a provider of its own: a key under the quotas of its project and model, of its organization, and of all.
value(q{
    SET keypool.test_now = '2026-11-26 16:00:00+00';
    CREATE TABLE said (number integer, class text, explained text, wait numeric, settled boolean, blocked_by text, blocked_limit text, blocked_ms integer);
    DO $$
    DECLARE
        a record; s record; e record; r record; after record; name text;
    BEGIN
        FOR a IN SELECT * FROM answers LOOP
            name := 'p' || a.number;
            PERFORM keypool_add_key(name, 'key', 'sk-' || a.number, settings => '{"account": "org/project"}');
            PERFORM keypool_set_quota(name, 'model', '{"account": "org/project", "models": ["m*"]}'),
                    keypool_set_quota(name, 'org', '{"account": "org"}'), keypool_set_quota(name, 'all', '{}');
            SELECT * INTO e FROM keypool_explain_answer(name, a.status, a.headers, a.error_code, a.body);
            SELECT * INTO s FROM keypool_select(name, 10, 'm1');
            SELECT * INTO r FROM keypool_report(s.key_id, s.lease, a.status, a.headers, a.error_code, a.body);
            SELECT * INTO after FROM keypool_peek(name, 10, 'm1');
            INSERT INTO said VALUES (a.number, r.class, e.class, r.retry_after_ms / 1000.0, r.settled, after.blocked_by, after.blocked_limit, after.retry_after_ms);
        END LOOP;
    END $$;});

# Answers for which a condition does not hold, with what was said.
sub failing {
    my ($condition) = @_;
    return value(qq{SELECT to_jsonb(a) || to_jsonb(s) FROM answers a JOIN said s USING (number) WHERE ($condition) IS NOT TRUE});
}
is(failing('s.class = a.class AND explained = a.class'), '', "each of the $answers answers is of its class");
is(failing('settled'), '', 'and settles its call');

# What a class blocks, and until when: not less than a second; what tells no time for the default, or until the day is over; and a success
# that says that nothing is left.
my $day_left   = 8 * 3600;
my $month_left = $day_left + 4 * 86400;
is(failing(qq{
    CASE a.class
    WHEN 'rate' THEN (blocked_by, blocked_limit) = ('model', 'cooldown') AND blocked_ms = ceil(greatest(coalesce(a.wait, 60), 1) * 1000)
    WHEN 'exhausted' THEN (blocked_by, blocked_limit) = ('model', 'cooldown') AND
        CASE WHEN a.wait IS NULL THEN blocked_ms / 1000 = CASE WHEN body ~* 'month' THEN least($month_left, 86400) ELSE $day_left END
             ELSE blocked_ms = ceil(least(a.wait, 86400) * 1000) END
    WHEN 'billing' THEN (blocked_by, blocked_limit, blocked_ms) = ('model', 'breaker', 3600000)
    WHEN 'auth' THEN (blocked_by, blocked_limit, blocked_ms) = ('key', 'breaker', 600000)
    WHEN 'ok' THEN CASE WHEN a.wait IS NULL THEN blocked_by IS NULL
        ELSE (blocked_by, blocked_limit, blocked_ms) = ('model', 'cooldown', a.wait * 1000) END
    ELSE blocked_by IS NULL END}), '', 'blocks what its class blocks, until it says');
is(failing(q{s.wait IS NOT DISTINCT FROM CASE a.class
    WHEN 'overloaded' THEN coalesce(a.wait, 5)
    WHEN 'rate' THEN blocked_ms / 1000.0 WHEN 'exhausted' THEN blocked_ms / 1000.0 WHEN 'billing' THEN 3600 WHEN 'auth' THEN 600 END}),
    '', 'and the caller is told the same');
is(value(q{SELECT count(*) FROM answers WHERE class NOT IN ('ok', 'client', 'unsent') AND source IS NULL AND provider <> 'any' AND body IS NOT NULL}), 0,
    'answers of providers have a source');
experiment('answers of providers', "$answers answers, explained and reported", '0 of another class, 0 that block otherwise');

$node->stop;
done_testing();
