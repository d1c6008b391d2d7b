# 039_days.pl - days and months of quotas and keys end when they do in their time zone, to the millisecond, as Python's zoneinfo knows it.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Moments in each zone, as milliseconds since 1970, with the ends of their day and month. A day begins at the first of its moments: where
# clocks are set back at midnight, the first of two.
my $program = <<'PYTHON';
import datetime, json, sys, zoneinfo
moments = []
def first(zone, year, month, day):
    return round(datetime.datetime(year, month, day, tzinfo=zone).timestamp() * 1000)
def add(name, millisecond):
    zone = zoneinfo.ZoneInfo(name)
    local = datetime.datetime.fromtimestamp(millisecond // 1000, zone)
    tomorrow = local.date() + datetime.timedelta(days=1)
    month = (local.year + local.month // 12, local.month % 12 + 1, 1)
    moments.append({"zone": name, "now": millisecond, "day": first(zone, tomorrow.year, tomorrow.month, tomorrow.day), "month": first(zone, *month)})
def around(name, year, month, day):
    zone = zoneinfo.ZoneInfo(name)
    begin = first(zone, year, month, day)
    for offset in (-86400000, -1, 0, 1, 3600000, 5400000, 7199999, 9000000, 43200123, 80000000, 86399999, 86400000):
        add(name, begin + offset)
for days in {
        "America/Los_Angeles": [(2026, 3, 8), (2026, 11, 1), (2026, 12, 31), (2028, 2, 29)],
        "Asia/Kathmandu": [(2026, 6, 30), (2026, 12, 31), (2028, 2, 28), (2028, 2, 29)],
        "Australia/Lord_Howe": [(2026, 4, 5), (2026, 10, 4)],
        "America/Santiago": [(2026, 4, 5), (2026, 9, 6)],
        "Africa/Cairo": [(2026, 4, 24), (2026, 10, 30)],
        "America/Havana": [(2026, 3, 8), (2026, 11, 1)],
        "Atlantic/Azores": [(2026, 3, 29), (2026, 10, 25)],
        "Pacific/Kiritimati": [(2027, 2, 28)],
        "UTC": [(2026, 1, 31), (2027, 2, 28), (2028, 2, 29), (2026, 4, 30)]}.items():
    for day in days[1]:
        around(days[0], *day)
json.dump(moments, sys.stdout)
PYTHON
my ($reference, $errors) = ('', '');
IPC::Run::run([ '/usr/bin/python3', '-' ], '<', \$program, '>', \$reference, '2>', \$errors) or die $errors;
my @moments = @{ decode_json($reference) };
cmp_ok(scalar(@moments), '>', 200, 'there are many moments');

my $longest = 2_147_483_647;    # of retry_after_ms
my $node    = new_cluster('days', conf => "synchronous_commit = off\nfsync = off\n");
$node->safe_psql('postgres', q{
    CREATE TABLE moment (number int, zone text, now bigint, day bigint, month bigint);
    CREATE TABLE answer (number int, period text, by text, place text, said text);
    -- Its first call is served at a moment. What a second one is told then, a millisecond before the period ends, and when it does.
    CREATE PROCEDURE ask(m moment, period text, provider text, owner text) LANGUAGE plpgsql AS $$
    DECLARE
        given record;
        place text;
        moment bigint;
    BEGIN
        PERFORM set_config('keypool.test_now', to_timestamp(m.now / 1000.0)::text, false);
        SELECT * INTO given FROM keypool_select(provider);
        PERFORM keypool_record(given.key_id, 1, given.lease);
        FOR place, moment IN VALUES ('then', m.now), ('before', CASE period WHEN 'day' THEN m.day ELSE m.month END - 1), ('at', CASE period WHEN 'day' THEN m.day ELSE m.month END) LOOP
            PERFORM set_config('keypool.test_now', to_timestamp(moment / 1000.0)::text, false);
            INSERT INTO answer SELECT m.number, period, owner, place, concat_ws(' ', status, retry_after_ms, blocked_by, blocked_limit) FROM keypool_try_select(provider);
        END LOOP;
    END $$;
    CREATE PROCEDURE ask_all() LANGUAGE plpgsql AS $$
    DECLARE
        m moment;
        name text;
        period text;
        column_name text;
    BEGIN
        FOR m IN SELECT * FROM moment ORDER BY number LOOP
            FOR period, column_name IN VALUES ('day', 'max_rpd'), ('month', 'max_requests_per_month') LOOP
                -- A quota with a zone of its own; one that has the provider's; a key, which has the provider's.
                name := concat_ws(' ', 'own', m.number, period);
                PERFORM keypool_add_key(name, 'k', 'sk');
                PERFORM keypool_set_quota(name, 'limit', jsonb_build_object(column_name, 1, 'time_zone', m.zone));
                CALL ask(m, period, name, 'limit');
                name := concat_ws(' ', 'provider', m.number, period);
                PERFORM keypool_set_provider(name, jsonb_build_object('time_zone', m.zone));
                IF m.number % 2 = 0 THEN
                    PERFORM keypool_add_key(name, 'k', 'sk');
                    PERFORM keypool_set_quota(name, 'limit', jsonb_build_object(column_name, 1));
                    CALL ask(m, period, name, 'limit');
                ELSE
                    PERFORM keypool_add_key(name, 'k', 'sk', settings => jsonb_build_object(column_name, 1));
                    CALL ask(m, period, name, 'key');
                END IF;
            END LOOP;
        END LOOP;
    END $$});
$node->safe_psql('postgres', 'INSERT INTO moment VALUES ' . join ', ', map { my $m = $moments[$_]; "($_, '$m->{zone}', $m->{now}, $m->{day}, $m->{month})" } 0 .. $#moments);
$node->safe_psql('postgres', q{SET timezone = 'Asia/Tokyo'; CALL ask_all()});

my (@wrong, %wrong_in);
my $asked = 0;
for my $line (split /\n/, $node->safe_psql('postgres', 'SELECT * FROM answer')) {
    my ($number, $period, $by, $place, $said) = split /\|/, $line;
    my $moment = $moments[$number];
    my $left   = { then => $moment->{$period} - $moment->{now}, before => 1, at => 0 }->{$place};
    $left = $longest if $left > $longest;
    my $expected = $left ? "limited $left $by " . ($period eq 'day' ? 'max_rpd' : 'max_requests_per_month') : 'ok';
    ++$asked;
    next if $said eq $expected;
    push @wrong, "$moment->{zone}, $moment->{now}, $period, $place: '$said', not '$expected'";
    $wrong_in{ $moment->{zone} } = 1;
}
is($asked, 12 * @moments, 'at each of them quotas and keys were asked three times');
is(join("\n", splice @{ [@wrong] }, 0, 10), '', 'and all days and months end when they do') or diag(scalar(@wrong) . ' wrong, in ' . join ', ', sort keys %wrong_in);

# A day of 23 or of 25 hours is one: what is used in its first and in its last hour counts together, and in the hour that comes twice.
for my $case ([ 'short', '2026-03-08 00:00:00 America/Los_Angeles', '2026-03-08 23:59:59.999 America/Los_Angeles' ],
    [ 'long', '2026-11-01 00:00:00 America/Los_Angeles', '2026-11-01 23:59:59.999 America/Los_Angeles' ],
    [ 'twice', '2026-11-01 01:30:00 PDT', '2026-11-01 01:30:00 PST' ])
{
    my ($provider, $begin, $end) = @$case;
    is($node->safe_psql('postgres', qq{
        SELECT keypool_add_key('$provider', 'k', 'sk') IS NOT NULL, keypool_set_quota('$provider', 'day', '{"max_rpd": 2, "time_zone": "America/Los_Angeles"}') IS NOT NULL;
        SELECT keypool_record(s.key_id, 1, s.lease) FROM set_config('keypool.test_now', '$begin'::timestamptz::text, false) c, LATERAL keypool_select('$provider' || left(c, 0)) s;
        SELECT keypool_record(s.key_id, 1, s.lease) FROM set_config('keypool.test_now', '$end'::timestamptz::text, false) c, LATERAL keypool_select('$provider' || left(c, 0)) s;
        SELECT status, blocked_limit FROM keypool_try_select('$provider');
        SELECT day_requests FROM keypool_list_quotas('$provider')}), "t|t\nt\nt\nlimited|max_rpd\n2", "a day that is $provider is one day");
}

# A rolling day is the last 24 hours in slots of 1,440 seconds: never less, and at most a slot more. It knows no zone.
for my $second (1_790_000_000, 1_790_000_639, 1_790_000_640, 1_790_000_641, 1_793_520_000) {
    my $freed = (int($second / 1440) + 61) * 1440;
    cmp_ok($freed - $second, '<=', 86400 + 1440, 'a rolling day is at most 24 minutes late');
    cmp_ok($freed - $second, '>=', 86400, 'and never early');
    my @said = split /\n/, $node->safe_psql('postgres', qq{
        SET keypool.test_now = '@{[ scalar gmtime $second ]} UTC';
        SELECT keypool_add_key('rolling $second', 'k', 'sk') IS NOT NULL, keypool_set_quota('rolling $second', 'day', '{"max_rpd": 1, "day": "rolling", "time_zone": "America/Los_Angeles"}') IS NOT NULL;
        SELECT keypool_record(key_id, 1, lease) FROM keypool_select('rolling $second');
        SELECT status, retry_after_ms, blocked_limit FROM keypool_try_select('rolling $second');
        SELECT set_config('keypool.test_now', (to_timestamp($freed) - interval '1 ms')::text, false) IS NOT NULL;
        SELECT status, retry_after_ms, blocked_limit FROM keypool_try_select('rolling $second');
        SELECT set_config('keypool.test_now', to_timestamp($freed)::text, false) IS NOT NULL;
        SELECT status FROM keypool_try_select('rolling $second')});
    is(join(' ', @said[ 2, 4, 6 ]), 'limited|' . 1000 * ($freed - $second) . '|max_rpd limited|1|max_rpd ok', "used at $second, it is free at $freed");
}
experiment('ends of days and months', scalar(@moments) . " moments, $asked answers", scalar(@wrong) . ' wrong');
$node->stop;
done_testing();
