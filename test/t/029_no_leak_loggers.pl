# 029_no_leak_loggers.pl - what libraries that log statements and plans show of a secret, in each format, and the activity view
# under the extended protocol: nothing.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RawSession;
use Test::More;

chomp(my $libraries = `pg_config --pkglibdir`);
my $audit = -e "$libraries/pgaudit.so";
my $node = new_cluster('loggers', conf => q{
shared_preload_libraries = '} . ($audit ? 'auto_explain, pgaudit' : 'auto_explain') . q{'
session_preload_libraries = 'keypool'
logging_collector = on
log_destination = 'stderr, csvlog, jsonlog'
log_rotation_size = 0
log_statement = all
log_duration = on
log_min_duration_statement = 0
log_min_messages = debug1
log_min_error_statement = debug5
log_error_verbosity = verbose
log_parameter_max_length_on_error = -1
debug_print_parse = on
debug_print_plan = on
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
auto_explain.log_verbose = on
auto_explain.log_analyze = on
} . ($audit ? "pgaudit.log = all\npgaudit.log_parameter = on\npgaudit.log_rows = on\npgaudit.log_relation = on\n" : ''));
$node->safe_psql('postgres', q{
CREATE TABLE failing (reason text);
CREATE FUNCTION add_constant(max_rpm bigint DEFAULT 0) RETURNS void LANGUAGE plpgsql
  AS $$BEGIN PERFORM keypool_add_key('p', 'constant', 'sk-marker-constant', max_rpm => max_rpm); END$$;
CREATE FUNCTION add_given(secret text, max_rpm bigint DEFAULT 0) RETURNS void LANGUAGE plpgsql
  AS $$BEGIN PERFORM keypool_add_key('p', 'given', secret, max_rpm => max_rpm); END$$;
CREATE FUNCTION add_and_tell(secret text) RETURNS void LANGUAGE plpgsql
  AS $$BEGIN PERFORM keypool_add_key('p', 'told', secret); RAISE LOG 'added %', secret; RAISE WARNING 'with "%"', secret USING DETAIL = secret, HINT = secret; END$$;
CREATE FUNCTION tell_row() RETURNS trigger LANGUAGE plpgsql
  AS $$BEGIN RAISE WARNING 'adding %', NEW.key_value; RAISE LOG 'adding %', NEW.key_value; RETURN NEW; END$$;
CREATE TRIGGER a_first BEFORE INSERT ON keypool.provider_keys FOR EACH ROW EXECUTE FUNCTION tell_row();
});
chomp(my $user = `id -un`);
my $onlooker = open_session($node);
my @seen;
sub look_on { push @seen, $onlooker->ask('SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid()'); return $seen[-1]; }

# Typed, in plans of each format, by statements whose quoted names turn inside and outside around.
for my $format (qw(text json yaml xml)) {
    my $session = open_session($node);
    for my $statement (
        "SET auto_explain.log_format = '$format'",
        qq{SELECT keypool_add_key('p', 'typed', 'sk-marker-$format-typed') AS "it's"},
        qq{SELECT keypool_add_key('p', 'dollar', \$s\$sk-marker-$format-dollar\$s\$), keypool_add_key('p', 'escape', E'sk-marker-$format-escape\\'s') -- it's},
        qq{INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('p', 'sk-marker-$format-insert') RETURNING 'it''s' AS "it's"},
        qq{UPDATE keypool.provider_keys SET key_value = 'sk-marker-$format-update' WHERE key_label = 'sk-marker-$format-label'},
        qq{PREPARE "it's" AS SELECT keypool_add_key('p', 'prepared', \$1)},
        qq{EXECUTE "it's"('sk-marker-$format-execute')},
        qq{EXECUTE "it's"('sk-marker-$format-execute' || 1/0)},
        qq{EXPLAIN (ANALYZE) EXECUTE "it's"('sk-marker-$format-explain')},
        qq{EXPLAIN EXECUTE "it's"('sk-marker-$format-explain-failed' || 1/0)},
        qq{CREATE TABLE made_$format AS EXECUTE "it's"('sk-marker-$format-made')},
        qq{PREPARE plain AS SELECT 1}, qq{EXECUTE plain\\; EXECUTE "it's"('sk-marker-$format-behind')}, qq{DEALLOCATE plain},
        qq{DO \$\$BEGIN PERFORM keypool_add_key('p', 'do', 'sk-marker-$format-do'); END\$\$},
        'SELECT add_constant()', 'SELECT add_constant()',
        qq{SELECT add_given('sk-marker-$format-given') AS keypool_add_key},
        qq{SELECT keypool_add_key('p', 'folded', 'sk-marker-' || '$format-folded')},
        qq{SELECT add_and_tell(key) AS keypool_add_key FROM (VALUES ('sk-marker-$format-told')) AS k (key)},
        qq{WITH "it's" AS MATERIALIZED (SELECT 'sk-marker-$format-with' AS s) SELECT keypool_add_key('p', 'with', s) FROM "it's"},
      ) {
        $session->ask($statement);
        look_on();
    }
    $session->close;
}

# Loaded after keypool, as anybody who may can do: then it logs before and after what keypool does.
{
    my $session = open_session($node);
    $session->ask('SELECT 1 FROM keypool_peek(\'p\')');
    $session->ask($_) for q{SET auto_explain.log_level = warning}, q{SET auto_explain.log_format = 'json'},
      q{SELECT keypool_add_key('p', 'warned', 'sk-marker-warned')}, q{SELECT add_given('sk-marker-warned-given') AS keypool_add_key};
    unlike($session->messages, qr/marker/, 'a plan that goes to the client as a warning is hidden as well');
    $session->close;
}

# Errors, whose CONTEXT holds the statement of a function; again when it was analysed long ago.
{
    my $session = open_session($node);
    $session->ask($_) for 'SELECT add_constant(-1)', 'SELECT add_constant(-1)', q{SELECT add_given('sk-marker-failed', -1) AS keypool_add_key}, q{SELECT keypool_add_key('p', 'a', 'sk-marker-integer'::int::text)},
      q{SELECT keypool_add_key('p', 'a' 'sk-marker-syntax' x)},
      q{DO $$BEGIN EXECUTE $x$SELECT keypool_add_key('p', 'a', 'sk-marker-nested'::int::text)$x$; END$$},
      q{SELECT keypool_add_key('p', 'a', ('{"sk-marker-json": sk-marker-json}'::json)::text)},
      q{BEGIN}, q{SELECT keypool_add_key('p', 'a', 'sk-marker-block')}, q{COMMIT},
      q{SET standard_conforming_strings = off}, q{SELECT keypool_add_key('\\\\', '\\'a', 'sk-marker-backslash')};
    $session->close;
}

# A statement that names nothing of keypool, of which the log's own settings show nothing before it runs: it is known by what it did.
{
    my $session = open_session($node);
    $session->ask($_) for q{SET log_statement = none}, ($audit ? q{SET pgaudit.log = none} : ()), q{SET debug_print_parse = off},
      q{SET debug_print_plan = off}, map { (qq{SET auto_explain.log_format = '$_'}, qq{SELECT add_given('sk-marker-unnamed-$_')}, qq{SELECT add_given('sk-marker-unnamed-$_', -1)}) } qw(text json yaml xml);
    look_on();
    $session->close;
}

# What psql would not send.
{
    my $session = RawSession->new($node, $user);
    $session->query(q{SELECT keypool_add_key('p', 'a', 'sk-marker-unterminated)});
    $session->query(q{SELECT keypool_add_key('p', 'a', 'sk-marker-several'); SELECT 1/0, 'sk-marker-several'});
    look_on();
}

# Bound, one message of the protocol at a time.
{
    my $session = RawSession->new($node, $user);
    my @bound = map {
        my ($name, $sql, @values) = @$_;
        is($session->parse("it's $name", $sql), '1', "$name: parsed");
        look_on();
        my $end = $session->bind('', "it's $name", @values) eq 'E' ? 'E' : $session->execute('');
        look_on();
        $session->sync;
        $end;
    } [ 'select', q{SELECT keypool_add_key($1, $2, $3)}, 'p', 'it\'s', 'sk-marker-bound' ],
      [ 'insert', q{INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ($1, $2)}, 'p', 'sk-marker-bound-insert' ],
      [ 'plain', q{SELECT keypool_add_key($1, 'typed beside', $2)}, 'p', 'sk-marker-bound-plain' ],
      [ 'array', q{SELECT keypool_add_key('p', 'array', s) FROM unnest($1::text[]) s}, '{sk-marker-bound-array}' ],
      [ 'negative', q{SELECT keypool_add_key($1, $2, $3, max_rpm => -1)}, 'p', 'a', 'sk-marker-bound-negative' ],
      [ 'integer', q{SELECT keypool_add_key('p', 'a', ($1::int)::text)}, 'sk-marker-bound-integer' ],
      [ 'cast', q{SELECT keypool_add_key('p', 'a', ($1::text)::int::text)}, 'sk-marker-bound-cast' ];
    is(join('', @bound), 'CCCCEEE', 'some are executed, some fail');
}

# Typed, under the extended protocol: Bind and Execute set the shown text again, also for a portal that is executed again. Nothing
# is logged, since an entry hides it as well.
{
    my $session = RawSession->new($node, $user);
    $session->query("SET $_") for 'log_statement = none', 'log_duration = off', 'log_min_duration_statement = -1', 'log_min_messages = panic',
      'debug_print_parse = off', 'debug_print_plan = off', 'auto_explain.log_min_duration = -1', ($audit ? 'pgaudit.log = none' : ());
    my $many = q{SELECT id, 'sk-marker-portal' FROM keypool.provider_keys};
    $session->parse('many', $many);
    unlike(look_on(), qr/marker/, 'a typed secret is hidden once the statement is parsed');
    $session->bind('portal', 'many');
    unlike(look_on(), qr/marker/, 'and when it is bound');
    for my $time (1, 2) {
        is($session->execute('portal', 1), 's', "execution $time");
        my $shown = look_on();
        unlike($shown, qr/marker/, 'hides it again');
        like($shown, qr/SELECT id, '\*\*\*' FROM keypool/, 'and shows the statement');
    }
    $session->sync;
    $session->parse('one', q{UPDATE keypool.provider_keys SET key_value = 'sk-marker-none' WHERE key_label = 'nobody'});
    for my $time (1, 2) {
        $session->bind('', 'one');
        $session->execute('');
        unlike(look_on(), qr/marker/, "an UPDATE is hidden in execution $time, though it brought nothing");
        $session->sync;
    }
    $session->parse('execute', q{PREPARE later AS SELECT keypool_add_key('p', 'later', $1)});
    $session->bind('', 'execute');
    $session->execute('');
    $session->sync;
    $session->parse('do', q{EXECUTE later('sk-marker-later')});
    $session->bind('', 'do');
    $session->execute('');
    unlike(look_on(), qr/marker/, 'EXECUTE is hidden');
    $session->sync;
}

# Anybody's statement: what nests deeper than any stack ends neither the session nor the server.
$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN');
my $nested = q{DO $o$ BEGIN RAISE LOG '%', 'provider_keys ' || (SELECT string_agg(format('do $a%s$', i), ' ') FROM generate_series(1, 60000) i); END $o$};
is($node->psql('postgres', $nested, extra_params => [ '-U', 'nobody' ]), 0, 'a message of 60,000 nested dollar quotes is logged');
my $typed = '/* provider_keys */ ' . join(' ', map { "do \$a$_\$" } 1 .. 60000);
$node->psql('postgres', $typed, extra_params => [ '-U', 'nobody' ]);
is($node->psql('postgres', q{DO $o$ BEGIN RAISE LOG '%', repeat('provider_keys ''do$$', 100000); END $o$}, extra_params => [ '-U', 'nobody' ]), 0, 'and one of two megabytes');
is($node->safe_psql('postgres', 'SELECT 1'), '1', 'the server goes on');

my $deeds = q{/* provider_keys */ SELECT 42 AS deed, 'constant', "relname" FROM pg_class LIMIT 0};
$node->safe_psql('postgres', $deeds);

cmp_ok($onlooker->ask(q{SELECT count(*) FROM keypool_list_keys('p')}), '>=', 30, 'secrets were stored on many paths');
$node->stop;

sub markers_in { my ($text) = @_; my %found = map { $_ => 1 } $text =~ /sk-marker[a-z_-]*/g; return join ' ', sort keys %found; }
sub first_lines_with_markers { my ($text) = @_; my @lines = grep { /sk-marker/ } split /\n/, $text; return join "\n", splice @lines, 0, 20; }
is(markers_in(join "\n", @seen), '', 'no secret was in pg_stat_activity');
my %logs = map { (/\.(log|csv|json)$/)[0] => slurp_file($_) } glob $node->data_dir . '/log/*';
$logs{csv} =~ s/""/"/g;
for my $kind (qw(log csv json)) {
    ok(length $logs{$kind}, "there is a log: $kind");
    is(markers_in($logs{$kind}), '', 'and no secret is in it') or diag(first_lines_with_markers($logs{$kind}));
}
ok($logs{log} !~ qr/\b115 107 45 109 97 114 107 101 114\b/, 'nor in a dump of a tree, byte by byte');
ok($logs{log} =~ qr/Query Text: SELECT keypool_add_key\('\*', '\*\*\*', '\*\*\*'\) AS "it's"\n/, 'a plan as text shows its statement');
ok($logs{log} =~ qr/"Query Text": "SELECT keypool_add_key\('\*', '\*\*\*', '\*\*\*'\) AS \\"it's\\"/, 'and one as JSON');
ok($logs{log} =~ qr/Query Text: "SELECT keypool_add_key\('\*', '\*\*\*', '\*\*\*'\) AS \\"it's\\"/, 'and one as YAML');
ok($logs{log} =~ qr/<Query-Text>SELECT keypool_add_key\('\*', '\*\*\*', '\*\*\*'\) AS "it's"/, 'and one as XML');
ok($logs{log} =~ qr{statement: /\* provider_keys \*/ SELECT 42 AS deed, '\*\*\*', "relname" FROM}, 'what a statement does can be read there, whatever it names');
SKIP: {
    skip 'there is no pgaudit', 2 unless $audit;
    ok($logs{log} =~ qr/AUDIT: SESSION,\d+,\d+,READ,SELECT,,,"SELECT keypool_add_key\(\$1, \$2, \$3\)",\*\*\*/, 'pgaudit shows statements without their parameters');
    ok($logs{log} =~ qr{AUDIT: SESSION,.*SELECT 42 AS deed, '\*\*\*', ""relname"" FROM}, 'and without constants');
}
done_testing();
