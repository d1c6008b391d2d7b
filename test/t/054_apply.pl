# 054_apply.pl - documents that are applied at once end as one of them says, beside other changes and without a deadlock; and dumps keep
# keys that have no secret yet.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('apply', conf => "deadlock_timeout = 100ms\n");
sub value { my ($sql) = @_; return $node->safe_psql('postgres', "SET client_min_messages = error; $sql"); }

# Two documents over the same three providers, which say everything differently.
sub document {
    my ($number) = @_;
    my @providers = map {
        my $provider = $_;
        my @keys = map { qq({"key_label": "k$_", "max_rpm": ${number}0, "priority": $number}) } $number .. $number + 4;
        qq("$provider": {"settings": {"max_cooldown": ${number}00}, "quotas": {"q$number": {"max_rpm": $number}, "both": {"max_tpm": $number}}, "keys": [) . join(', ', @keys) . ']}'
    } qw(c a b);
    return '{"providers": {' . join(', ', @providers) . qq(}, "error_rules": [{"http_status": 418, "class": ") . ($number == 1 ? 'client' : 'server') . '"}]}';
}
my @documents = map { document($_) } 1, 2;

# What is there, of what the documents say: keys that are on, quotas, defaults, rules.
my $state = q{SELECT (SELECT string_agg(concat_ws(' ', provider_id, key_label, max_rpm, priority), ',' ORDER BY provider_id, key_label) FROM keypool.provider_keys WHERE is_active),
    (SELECT string_agg(concat_ws(' ', provider_id, name, max_rpm, max_tpm), ',' ORDER BY provider_id, name) FROM keypool.quotas),
    (SELECT string_agg(concat_ws(' ', provider_id, max_cooldown), ',' ORDER BY provider_id) FROM keypool.providers), (SELECT string_agg(class, ',') FROM keypool.error_rules)};
my @wanted = map { value("BEGIN; SELECT count(*) FROM keypool_apply('$_', prune => true); $state; ROLLBACK") =~ s/^\d+\n//r } @documents;
isnt($wanted[0], $wanted[1], 'the two documents differ');
value("SELECT count(*) FROM keypool_apply('$_')") for @documents;

my ($sessions, $seconds) = (6, rounds(4, 60));
my $folder = $node->basedir;
append_to_file("$folder/apply$_.sql", "SET client_min_messages = error;\nSELECT count(*) FROM keypool_apply('$documents[$_]', prune => true);\n") for 0, 1;
append_to_file("$folder/others.sql", q{
    \set n random(1, 6)
    SELECT keypool_update_key(id, '{"weight": 2}') FROM keypool.provider_keys WHERE provider_id = 'a' AND key_label = 'k:n';
    SELECT keypool_set_quota('b', 'both', '{"max_rpd": 5}') IS NOT NULL;
    SELECT status FROM keypool_try_select('c');
});
for my $i (0, 1) {
    my $rules = join ', ', map { qq({"http_status": $_, "class": "client"}) } $i ? 500 .. 540 : reverse 500 .. 540;
    append_to_file("$folder/rules$i.sql", qq(SELECT count(*) FROM keypool_apply('{"error_rules": [$rules]}', prune => true);\n));
}
my @scripts = ((map { 'apply' . $_ % 2 } 1 .. $sessions), qw(others rules0 rules1));
my @errors = ('') x @scripts;
my @runs = map { IPC::Run::start([ load_command($node, '-T', $seconds, '-f', "$folder/$scripts[$_].sql") ], '>', '/dev/null', '2>', \$errors[$_]) } 0 .. $#scripts;
my @failed = grep { !$runs[$_]->finish } 0 .. $#scripts;
is(join("\n", map { $errors[$_] } @failed), '', "$sessions sessions apply two documents, and one changes things beside them: no error, and no deadlock");

for my $i (0, 1) {
    value("SELECT count(*) FROM keypool_apply('$documents[$i]', prune => true)");
    is(value($state), $wanted[$i], 'document ' . ($i + 1) . ' ends as it does alone');
    is(value("SELECT count(*) FROM keypool_apply('$documents[$i]', prune => true)"), 0, '... and once more changes nothing');
}
experiment('documents applied at once', "$sessions sessions, $seconds s", '0 errors, 0 deadlocks');

# Many keys cost as many, not their square.
my $many = q{SELECT jsonb_build_object('providers', jsonb_build_object('many', jsonb_build_object('keys',
    (SELECT jsonb_agg(jsonb_build_object('key_label', 'k' || i, 'max_rpm', 5)) FROM generate_series(1, %d) i))))};
my $document = sprintf $many, 2000;
value("SELECT count(*) FROM keypool_apply(($document))");
my (undef, $read) = split /\n/, value("BEGIN; SELECT count(*) FROM keypool_apply(($document)); SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'keypool.provider_keys'::regclass; COMMIT");
cmp_ok($read, '<', 2000 * 4, "a document of 2,000 keys reads $read rows of keys");

# Dumps keep keys without a secret.
my $export = value('SELECT keypool_export()');
my $dump = "$folder/dump";
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'a dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'is restored');
is($node->safe_psql('restored', 'SET client_min_messages = error; SELECT keypool_export()'), $export, 'and says the same');
is($node->safe_psql('restored', q{SELECT count(*) > 2000 FROM keypool.provider_keys WHERE key_value = 'enc:none'}), 't', 'with the keys that have no secret');
$node->stop;
done_testing();
