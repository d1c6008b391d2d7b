# 036_quotas_exact.pl - quotas that several keys share are exact under concurrency: as many selections as the tightest limit allows, not one more.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $sessions = 64;
my $node = new_cluster('quotas', conf => "synchronous_commit = off\n");
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
value('CREATE TABLE given (provider text, label text, tokens bigint)');

# Every call selects, and settles some of the selections at once, as gateways do.
value(q{
    CREATE FUNCTION ask(provider text, asked bigint, asked_model text) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        given record;
    BEGIN
        SELECT * INTO given FROM keypool_try_select(provider, asked, model => asked_model);
        IF given.status = 'ok' THEN
            INSERT INTO given VALUES (provider, given.key_label, asked);
            IF random() < 0.5 THEN PERFORM keypool_record(given.key_id, asked, given.lease); END IF;
        END IF;
    END $$});

# Keys by account, {account => [label, ...]}, each with these limits, and quotas.
sub make_pool {
    my ($provider, $keys, $limits, %quotas) = @_;
    for my $account (sort keys %$keys) {
        value(sprintf q{SELECT keypool_add_key('%s', '%s', 'sk-%s', settings => '%s'::jsonb || '{"account": "%s"}')}, $provider, $_, $_, $limits, $account) for @{ $keys->{$account} };
    }
    value("SELECT keypool_set_quota('$provider', '$_', '$quotas{$_}')") for sort keys %quotas;
    return;
}

# All sessions at once, each with more calls than there is room for in all of them. The window must hold them all.
sub rush {
    my ($provider, $tokens, $model, $calls) = @_;
    my $begin = time;
    my $load  = begin_load($node, "SELECT ask('$provider', $tokens, $model);", '-c', $sessions, '-j', 2, '-t', $calls);
    is(end_load($load), $sessions * $calls, "$provider: $sessions sessions make $calls calls each") or diag($load->{errors});
    cmp_ok(time - $begin, '<', 50, "$provider: within a window");
    my %given = map { split /\|/ } split /\n/, value("SELECT label, count(*) FROM given WHERE provider = '$provider' GROUP BY 1");
    my ($all, $most) = (0, 0);
    for (values %given) { $all += $_; $most = $_ if $_ > $most; }
    return ($all, $most, %given);
}

my @five = map { "key $_" } 1 .. 5;
my $rounds = rounds(3, 50);
my ($calls, $wrong) = (0, 0);
for my $round (1 .. $rounds) {
    my $many = 10;
    my %shared = (account => '{"account": "org/a", "max_rpm": 50}');

    make_pool("shared $round", { 'org/a' => \@five }, '{}', %shared);
    my ($all, $most) = rush("shared $round", 10, 'NULL', $many);
    ++$wrong unless is($all, 50, 'five keys of one account whose quota is 50: exactly 50');

    make_pool("both $round", { 'org/a' => \@five }, '{"max_rpm": 20}', %shared);
    ($all, $most) = rush("both $round", 10, 'NULL', $many);
    ++$wrong unless is($all, 50, 'and 20 for each key: exactly 50');
    ++$wrong unless cmp_ok($most, '<=', 20, 'and none over 20');

    # An account below and one beside: the first draws on the quota, the second does not.
    make_pool("tree $round", { 'org/a/b' => [ 'below 1', 'below 2' ], 'org/a' => [ 'at' ], 'org/ab' => [ 'beside' ] }, '{"max_rpm": 30}', %shared);
    ($all, $most, my %given) = rush("tree $round", 10, 'NULL', $many);
    ++$wrong unless is($all . ' ' . $given{beside}, '80 30', 'keys of an account below count with it, those of one beside do not');

    # Three quotas and the key's own limits: the tightest holds, by requests or by tokens.
    my %three = (
        family  => '{"account": "org/a", "models": ["large*"], "max_tpm": 400}',
        account => '{"account": "org/a", "max_rpd": 60}',
        all     => '{"max_in_flight": 1000, "max_tpm": 100000}',
    );
    make_pool("three $round", { 'org/a' => \@five }, '{"max_rpm": 20}', %three);
    ($all) = rush("three $round", 10, q{'large-1'}, $many);
    ++$wrong unless is($all, 40, 'three quotas and the key: the tightest, of tokens, holds exactly');
    ($all) = rush("three $round", 10, q{'small-1'}, $many);
    ++$wrong unless is($all, 60, 'another model has what the day has left');
    my $used = value("SELECT string_agg(name || ' ' || window_requests || ' ' || window_tokens, ', ' ORDER BY name) FROM keypool_list_quotas('three $round')");
    ++$wrong unless is($used, 'account 60 600, all 60 600, family 40 400', 'and every quota has counted what was its');
    $calls += 5 * $sessions * $many;
}
experiment("$sessions sessions on keys that share quotas", "$calls calls, $rounds times five pools", "$wrong limits not met exactly");
$node->stop;
done_testing();
