# 051_monitoring.pl - what monitoring/ brings, with Debian's Prometheus and exporters: Prometheus has of either exporter exactly what keypool.metrics
# says; no alert fires while all is well, and each does for its cause; every query of the dashboard has an answer.

use strict;
use warnings FATAL => 'all';

use File::Spec;
use HTTP::Tiny;
use JSON::PP;
use KeypoolCluster;
use List::Util qw(all first);
use POSIX qw(strftime);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my @programs = qw(prometheus promtool prometheus-sql-exporter prometheus-postgres-exporter);
for my $program (@programs) {
    plan skip_all => "there is no $program" unless first { -x "$_/$program" } split /:/, $ENV{PATH};
}

my $node = new_cluster('monitored', conf => "listen_addresses = ''\n");
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# A file of monitoring/ as it is, but for its times: what is evaluated every 15 s there is every second here, what lasts minutes there
# lasts a second here, and windows of minutes are of half a minute. $replace{from} = to stands for what a user would fill in.
my $folder = File::Spec->rel2abs($node->basedir) . '/monitoring';
mkdir $folder or die "$folder: $!";

sub shortened {
    my ($file, %replace) = @_;
    my $text = slurp_file("monitoring/$file");
    $text =~ s/^( *(?:\w+_)?interval:) 15s$/$1 1s/mg;
    $text =~ s/^( *for:) \d+m$/$1 1s/mg;
    $text =~ s/\[\d+m\]/[30s]/g;
    for my $from (keys %replace) { $text =~ s/\Q$from\E/$replace{$from}/ or die "$file: no $from"; }
    append_to_file("$folder/$file", $text);
    return "$folder/$file";
}

# What runs beside the server, by name; with an environment of its own, and its output in a log.
my %running;

sub begin {
    my ($name, $environment, @command) = @_;
    $running{$name} = IPC::Run::start([ 'env', '-i', "PATH=$ENV{PATH}", "HOME=$folder", 'GOMAXPROCS=1', 'TZ=UTC', @$environment, @command ], '<', \undef, '>&', "$folder/$name.log");
    return;
}
sub end { my ($name) = @_; my $run = delete $running{$name} or return; $run->kill_kill(grace => 10); return; }
END { my $status = $?; end($_) for keys %running; $? = $status; }

my $http = HTTP::Tiny->new(proxy => undef, http_proxy => undef, https_proxy => undef, timeout => 10);
my ($sql_port, $postgres_port, $prometheus_port) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 3;

# What Prometheus says: the data of its answer, or undef. It may not have started.
sub ask {
    my ($path, %parameters) = @_;
    my $url      = "http://127.0.0.1:$prometheus_port/api/v1/$path?" . $http->www_form_urlencode(\%parameters);
    my $response = $http->get($url);
    my $answer   = eval { decode_json($response->{content}) } // return;
    return $answer->{status} eq 'success' ? $answer->{data} : undef;
}

# Whether something comes true in time.
sub eventually {
    my ($check) = @_;
    for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default) { return 1 if $check->(); usleep(100_000); }
    return 0;
}

sub firing { return grep { $_->{state} eq 'firing' } @{ (ask('alerts') // {})->{alerts} // [] }; }

# Each of these alerts fires at some time, for this provider and no other; $meanwhile is done again and again.
sub fires {
    my ($expected, $meanwhile) = @_;
    my %for = map { $_ => {} } keys %$expected;
    eventually(sub {
        $meanwhile->() if $meanwhile;
        $for{ $_->{labels}{alertname} }{ $_->{labels}{provider} // '' } = 1 for firing();
        return all { $for{$_}{ $expected->{$_} } } keys %$expected;
    });
    is(join(', ', sort keys %{ $for{$_} }), $expected->{$_}, "$_ fires") for sort keys %$expected;
    return;
}

# Metrics with their labels and values, each in a line.
my $json = JSON::PP->new->canonical->utf8;
sub lines { return join "\n", sort @_; }
sub line { my ($labels, $value) = @_; return $json->encode($labels) . ' ' . (0 + $value); }

sub told_by_keypool {
    return lines(map { my $row = decode_json($_); line($row->{labels}, $row->{value}) }
          split /\n/, value(q{SELECT jsonb_build_object('labels', labels || jsonb_build_object('__name__', name), 'value', value) FROM keypool.metrics}));
}

sub told_by_prometheus {
    my ($port) = @_;
    my $data = ask('query', query => qq({__name__=~"keypool_.+", instance="127.0.0.1:$port"})) // return '';
    my @all = @{ $data->{result} };
    for my $labels (map { $_->{metric} } @all) { delete @$labels{qw(instance job host database server sql_job)}; }
    return lines(map { line($_->{metric}, $_->{value}[1]) } @all);
}

#
# A role that may look, and nothing else.
#
value(q{
    CREATE ROLE prometheus LOGIN;
    SELECT keypool_grant('prometheus', 'monitor');
    SELECT keypool_add_key(provider, 'key', 'sk-' || provider) FROM unnest('{well,full,limited,broken,lost,sealed}'::text[]) provider;
    SELECT keypool_add_key(provider, 'other key', 'sk-other') FROM unnest('{limited,sealed}'::text[]) provider;
    SELECT keypool_set_quota('full', 'of the day', '{"max_rpd": 4}');
    SELECT keypool_set_quota('well', E'an \\u00e4 and a "quota\\\\', '{"max_tpm": 1000, "max_in_flight": 3}');
    SELECT keypool_set_provider('lost', '{"call_timeout": 60}');
    SELECT keypool_record(s.key_id, 7, s.lease, 3) FROM keypool_select('well', 5) s;
    SELECT FROM keypool_select('well', 5);});
is(value(q{SELECT count(*) FROM pg_class WHERE relnamespace = 'keypool'::regnamespace AND relkind <> 'i' AND relkind <> 'v' AND relkind <> 'c'
        AND (has_table_privilege('prometheus', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
            OR has_any_column_privilege('prometheus', oid, 'SELECT, INSERT, UPDATE, REFERENCES'))}),
    0, 'the role of the exporters has no right on a table of keypool');
for my $statement ('SELECT key_value FROM keypool.provider_keys', q{SELECT keypool_select('well')}, q{SELECT keypool_toggle_key(keypool_key('well', 'key'), false)}) {
    like(failure_of($node, "SET ROLE prometheus; $statement"), qr/42501: permission denied/, "nor may it call $statement");
}

#
# All is well.
#
command_ok([ 'promtool', 'check', 'config', 'monitoring/prometheus.yml' ], 'promtool is content with the configuration and the alerts');
begin('sql-exporter', [ 'PGHOST=' . $node->host, 'PGPORT=' . $node->port, 'LOGLEVEL=warn' ],
    'prometheus-sql-exporter', '-config.file', shortened('sql-exporter.yml'), '-web.listen-address', "127.0.0.1:$sql_port");
# The collectors of its own differ from version to version.
my $options    = join ' ', run_command([ 'prometheus-postgres-exporter', '--help' ]);
my @collectors = $options =~ /--(?:\[no-\])?collector\.(\w+)\s+Enable the \w+ collector\s+\(default:\s+enabled\)/g;
begin('postgres-exporter', [ "DATA_SOURCE_NAME=user=prometheus host=@{[ $node->host ]} port=@{[ $node->port ]} dbname=postgres sslmode=disable" ],
    'prometheus-postgres-exporter', '--disable-default-metrics', '--disable-settings-metrics', (map { "--no-collector.$_" } @collectors),
    '--extend.query-path', shortened('postgres-exporter.yml'), '--web.listen-address', "127.0.0.1:$postgres_port");
shortened('alerts.yml');
begin('prometheus', [], 'prometheus', '--log.level=warn', "--storage.tsdb.path=$folder/data", "--web.listen-address=127.0.0.1:$prometheus_port",
    '--config.file', shortened('prometheus.yml', 'localhost:9237' => "127.0.0.1:$sql_port', '127.0.0.1:$postgres_port"));

my %exporter = ('prometheus-sql-exporter' => $sql_port, 'prometheus-postgres-exporter' => $postgres_port);
for my $name (sort keys %exporter) {
    my ($has, $should);
    eventually(sub { ($has, $should) = (told_by_prometheus($exporter{$name}), told_by_keypool()); return $has eq $should; });
    is($has, $should, "Prometheus has of $name what keypool.metrics says");
}
# While there was nothing yet, KeypoolScrapeGone was right; three seconds later it is over, and whatever else would fire does.
sub rules { return map { @{ $_->{rules} } } @{ ask('rules')->{groups} }; }
my @rules  = rules();
my @alerts = map { $_->{name} } @rules;
my $later  = strftime('%Y-%m-%dT%H:%M:%S', gmtime(time + 3));
eventually(sub { all { $_->{lastEvaluation} gt $later } rules() });
is(join(' ', map { "$_->{labels}{alertname} is $_->{state}" } @{ ask('alerts')->{alerts} }), '', 'and no alert fires, or is about to');
is(join(' ', grep { $_ ne 'ok' } map { $_->{health} } rules()), '', 'though all are evaluated');
for my $rule (@rules) {
    ok($rule->{annotations}{summary} && $rule->{labels}{severity} =~ /^(warning|critical)$/, "$rule->{name} says how bad it is");
    like(slurp_file('monitoring/README.md'), qr/^### $rule->{name}$/m, '... and what to do is written down');
    is($rule->{annotations}{runbook}, 'monitoring/README.md#' . lc $rule->{name}, '... there');
}

#
# Everything goes wrong. What takes hours has happened hours ago.
#
my $one_429 = q{SELECT keypool_mark_429(s.key_id, 1, s.lease) FROM keypool_select('limited') s};
my $ago     = sub { my ($time) = @_; return value("SELECT now() - interval '$time'"); };
value($one_429);
value(qq{SET keypool.test_now = '@{[ $ago->('2 hours') ]}'; SELECT keypool_report(s.key_id, s.lease, 401) FROM keypool_select('broken') s});
# Calls are counted as never settled when later calls take their places.
value(q{DO $$
    BEGIN
        FOR second IN 0..200 LOOP
            PERFORM set_config('keypool.test_now', (now() - interval '10 minutes' + second * interval '1 second')::text, false);
            IF second < 5 THEN PERFORM keypool_select('lost');
            ELSE PERFORM keypool_record(s.key_id, 1, s.lease) FROM keypool_select('lost') s;
            END IF;
        END LOOP;
    END $$});
value(q{ALTER TABLE keypool.provider_keys DISABLE TRIGGER before_key_change;
    UPDATE keypool.provider_keys SET key_value = 'enc:v1:gone:' || repeat('A', 60) WHERE provider_id = 'sealed' AND key_label = 'key';
    ALTER TABLE keypool.provider_keys ENABLE ALWAYS TRIGGER before_key_change});
value(q{SELECT count(keypool_record(s.key_id, 1, s.lease)) FROM generate_series(1, 4) i, LATERAL keypool_select('full', i) s});

my %expected = (
    KeypoolProviderRefuses  => 'full',
    KeypoolQuotaNearlyFull  => 'full',
    KeypoolFewFreeKeys      => 'full',
    KeypoolRateLimited      => 'limited',
    KeypoolBreakerOpen      => 'broken',
    KeypoolNeverSettled     => 'lost',
    KeypoolSecretsDoNotOpen => 'sealed');
my %later = map { $_ => '' } qw(KeypoolKeyringNotLoaded KeypoolScrapeFails KeypoolScrapeGone);
is(join(' ', sort @alerts), join(' ', sort keys %expected, keys %later), 'every alert is tried');
fires(\%expected, sub { value(q{SELECT status FROM keypool_try_select('full')}) });

# What it all was has come out under the names that are documented, and the dashboard shows it.
my ($table) = slurp_file('docs/operations.md') =~ /^## Numbers for a collector\n(.*?)^## /ms;
my @documented = map { /`(keypool_\w+)`/g } map { (split /\|/)[1] } grep { /^\| `keypool_/ } split /\n/, $table;
cmp_ok(scalar(@documented), '>', 15, 'there are documented names');
for my $name (sort keys %exporter) {
    my %has = map { $_->{metric}{__name__} => 1 } @{ ask('query', query => qq({__name__=~"keypool_.+", instance="127.0.0.1:$exporter{$name}"}))->{result} };
    is(join(' ', grep { !$has{$_} } @documented), '', "every documented metric comes by $name");
    my $shown = $http->get("http://127.0.0.1:$exporter{$name}/metrics")->{content};
    like($shown, qr/metric="keypool_keys"/, '... which shows the metrics');
    unlike($shown, qr/sk-/, '... and no secret');
}
my $dashboard = decode_json(slurp_file('monitoring/dashboard.json'));
for my $panel (@{ $dashboard->{panels} }) {
    for my $target (@{ $panel->{targets} }) {
        my $query = $target->{expr};
        $query =~ s/\$provider/.*/g;
        $query =~ s/\$__rate_interval/1m/g;
        my $answer = ask('query', query => $query);
        ok($answer && @{ $answer->{result} }, "the dashboard shows: $panel->{title}") or diag $query;
    }
}

# What the runbooks tell to look at can be looked at, by a role that may.
my ($runbooks) = slurp_file('monitoring/README.md') =~ /^## Alerts\n(.*)/ms;
value(q{CREATE ROLE operator; SELECT keypool_grant('operator', 'operator')});
for my $statement (map { split /(?<=;)[^\n]*\n/ } $runbooks =~ /^```sql\n(.*?)^```$/msg) {
    unlike(failure_of($node, "SET ROLE operator; $statement"), qr/ERROR/, "the runbooks may say: $statement");
}

#
# The keyring is gone; then the right to look; then the exporters.
#
rename keyring_of($node), keyring_of($node) . '.away' or die "keyring: $!";
fires({ KeypoolKeyringNotLoaded => '' });
value(q{SELECT keypool_revoke('prometheus', 'monitor')});
fires({ KeypoolScrapeFails => '' });
end($_) for qw(sql-exporter postgres-exporter);
fires({ KeypoolScrapeGone => '' });

end('prometheus');
$node->stop;
done_testing();
