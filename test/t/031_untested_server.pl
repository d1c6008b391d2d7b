# 031_untested_server.pl - in a server of an untested version the server itself logs changes of states, and all sessions
# are told of all keys; and it logs the same, byte by byte, as keypool does elsewhere.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_cluster('node', conf => "wal_level = replica\ncheckpoint_timeout = 1h\nwal_log_hints = off\nfull_page_writes = off\n");
my %database = (tested => 'postgres', untested => 'untested');
$node->safe_psql('postgres', 'CREATE DATABASE untested');
$node->safe_psql('untested', 'CREATE EXTENSION keypool CASCADE; ALTER DATABASE untested SET keypool.test_untested_server = on');

sub value { my ($server, $sql) = @_; return $node->safe_psql($database{$server}, $sql); }

#
# The same calls, at the same times, of the same keys, which lie in the same places of their pages.
#
my $keys = 5;
my @keys = map { sprintf '00000000-0000-8000-8000-%012d', $_ } 1 .. $keys;
my $add  = join ', ', map { "('$_', 'pool', 'sk-$_')" } @keys;

# Calls of all kinds, many of them in the same second or millisecond, some after a window or an hour has passed.
sub some_calls {
    my ($count, $seed) = @_;
    srand $seed;
    my $now   = 1767268800;    # 2026-01-01 12:00:00 UTC
    my @calls = ('CREATE TEMP TABLE open (key uuid, lease bigint)');
    for (1 .. $count) {
        $now += (0, 0, 0.001, 0.5, 1, 7, 70, 3600)[ rand 8 ];
        my $key    = $keys[ rand @keys ];
        my $tokens = int((1, 300, 70_000, 1_000_000_000)[ rand 4 ] * rand);
        my $lease  = "(SELECT lease FROM open WHERE key = '$key' ORDER BY lease DESC LIMIT 1 OFFSET " . int(rand 3) . ')';
        push @calls, "SELECT set_config('keypool.test_now', to_timestamp($now)::text, false)";
        push @calls, (
            "SELECT keypool_record('$key', $tokens)",
            "SELECT keypool_record('$key', $tokens, $lease)",
            "INSERT INTO open SELECT key_id, lease FROM keypool_select('pool', $tokens)",
            "INSERT INTO open SELECT key_id, lease FROM keypool_select('pool', $tokens)",
            "SELECT keypool_mark_429('$key', 5, $lease)",
            "SELECT keypool_clear_cooldown('$key')",
        )[ rand 6 ];
    }
    return join(";\n", @calls) . ";\n";
}

# The changes of states in a piece of WAL: the records without what differs from one to the next of the same kind (the
# transaction, the link to the record before, and the checksum) and from table to table.
sub state_records {
    my ($server, $from, $to) = @_;
    my $file = value($server, q{SELECT oid || '/' || pg_relation_filenode('keypool.key_state') FROM pg_database WHERE datname = current_database()});
    my ($dump, $errors) = run_command([ 'pg_waldump', '--path', $node->data_dir . '/pg_wal', '--start', $from, '--end', $to, '--rmgr', 'Generic' ]);
    my @records;
    for my $line (split /\n/, $dump) {
        my ($total, $high, $low) = $line =~ m{len \(rec/tot\): +\d+/ +(\d+), .*lsn: ([0-9A-F]+)/([0-9A-F]+),.*rel \d+/$file } or next;
        my $record = wal_bytes(hex $high, hex $low, $total);
        substr $record, $_->[0], $_->[1], '' for [ 24 + 4, 12 ], [ 20, 4 ], [ 4, 12 ];
        push @records, unpack 'H*', $record;
    }
    return @records;
}

# Where the WAL ends; what is before it is on the disk.
sub end_of_wal {
    my ($server) = @_;
    my $end = value($server, 'SELECT pg_current_wal_insert_lsn()');
    value($server, 'SELECT pg_switch_wal()');
    return $end;
}

# Bytes of the WAL, without the headers of its pages.
sub wal_bytes {
    my ($high, $low, $length) = @_;
    my ($segment_size, $page_size) = (16 * 1024 * 1024, 8192);
    my $bytes = '';
    while (length $bytes < $length) {
        my $offset = $low % $page_size;
        if ($offset == 0) {
            $low += $offset = $low % $segment_size == 0 ? 40 : 24;
        }
        my $name = sprintf '%s/pg_wal/%08X%08X%08X', $node->data_dir, 1, $high, int($low / $segment_size);
        open my $wal, '<:raw', $name or die "$name: $!";
        seek $wal, $low % $segment_size, 0;
        my $wanted = $length - length $bytes;
        $wanted = $page_size - $offset if $wanted > $page_size - $offset;
        read($wal, my $read, $wanted) == $wanted or die "$name: $!";
        $bytes .= $read;
        $low += $wanted;
    }
    return $bytes;
}

my $calls = some_calls(rounds(6000, 100_000), 20260101);
my (%records, %state, %failed);
for my $server ('tested', 'untested') {
    value($server, "INSERT INTO keypool.provider_keys (id, provider_id, key_value) VALUES $add");
    my $from = value($server, 'SELECT pg_current_wal_insert_lsn()');
    my (undef, undef, $errors) = $node->psql($database{$server}, $calls, on_error_stop => 0);
    $failed{$server} = join ' ', sort { $a cmp $b } $errors =~ /ERROR:  (.*)/g;
    my $to = end_of_wal($server);
    $records{$server} = [ state_records($server, $from, $to) ];
    $state{$server} = value($server, 'SELECT * FROM keypool.key_state ORDER BY key_id');
}
my @longest = sort { length $b <=> length $a } @{ $records{tested} };
note 'records: ' . @longest . ', the longest has ' . length($longest[0]) / 2 . ' bytes';
cmp_ok(scalar(@longest), '>', 1000, 'there are many records of changes of states');
is($failed{untested}, $failed{tested}, 'the same calls fail in an untested server');
is($state{untested}, $state{tested}, 'and make the same states of the same keys');
is(scalar(@{ $records{untested} }), scalar(@longest), 'with as many records in the log');
my @different = grep { $records{tested}[$_] ne ($records{untested}[$_] // '') } 0 .. $#longest;
is(scalar(@different), 0, 'which are, byte by byte, those that GenericXLogFinish() writes')
    or diag(map { "$_: $records{tested}[$_]\n   $records{untested}[$_]\n" } grep { defined } @different[ 0 .. 2 ]);

#
# That it is the server that logs there shows in what only it does: it leaves zeros between the lines and the rows of a page.
#
value('tested', 'CREATE EXTENSION pageinspect');
value('untested', 'CREATE EXTENSION pageinspect');
my ($lower, $upper) = split /\|/, value('tested', q{SELECT lower, upper FROM page_header(get_raw_page('keypool.key_state', 0))});
my %file = map { $_ => $node->data_dir . '/' . value($_, q{SELECT pg_relation_filepath('keypool.key_state')}) } keys %database;
cmp_ok($upper - $lower, '>', 8, 'a page of states has room between its lines and its rows');
$node->append_conf('postgresql.conf', 'ignore_checksum_failure = on');
$node->stop;
for my $path (values %file) {
    open my $page, '+<:raw', $path or die "$path: $!";
    seek $page, $lower + 4, 0;
    print $page 'X';
    close $page or die "$path: $!";
}
$node->start;
for my $server ('tested', 'untested') {
    value($server, "SELECT keypool_record(id) FROM keypool_list_keys()");
    my $byte = value($server, "SELECT get_byte(get_raw_page('keypool.key_state', 0), $lower + 4)");
    is($byte, $server eq 'tested' ? ord 'X' : 0, "the record is written by " . ($server eq 'tested' ? 'keypool' : 'the server'));
}

#
# What is announced of a change of keys: a provider by the catalog, or the index of all.
#
for my $server ('tested', 'untested') {
    my $index = value($server, q{SELECT 'keypool.provider_keys_order'::regclass::oid});
    my $from  = value($server, 'SELECT pg_current_wal_insert_lsn()');
    value($server, 'UPDATE keypool.provider_keys SET priority = 1');
    my $to = end_of_wal($server);
    my ($commits) = run_command([ 'pg_waldump', '--path', $node->data_dir . '/pg_wal', '--start', $from, '--end', $to, '--rmgr', 'Transaction' ]);
    my ($told) = grep { /inval msgs/ } split /\n/, $commits;
    if ($server eq 'tested') {
        like($told, qr/inval msgs:.* catcache \d+/, 'a tested server announces the provider');
        unlike($told, qr/relcache/, 'and no table');
    } else {
        like($told, qr/inval msgs:.* relcache $index\b/, 'an untested server announces the index');
        unlike($told, qr/catcache/, 'and no provider');
    }
}

#
# A crash under load in the untested server.
#
$node->append_conf('postgresql.conf', "full_page_writes = on\nkeypool.test_untested_server = on");
$node->restart;
my $key = value('tested', q{SELECT keypool_add_key('crash', 'a', 'sk-a')});
my $running = begin_load($node, "SELECT lease FROM keypool_select('crash', 500) \\gset\nSELECT keypool_record('$key', 11, :lease);", '-c', 4, '-T', 60);
sleep(0.7);
value('tested', 'CHECKPOINT');
sleep(0.7);
crash($node);
my $said = end_load($running);
$node->start;
my ($recorded, $tokens) = split /\|/, value('tested', "SELECT total_requests, total_tokens FROM keypool_list_keys('crash')");
ok($said > 100 && $recorded >= $said && $recorded <= $said + 4, 'a crash of an untested server loses no acknowledged record')
    or diag("$said acknowledged, $recorded recorded");
is($tokens, 11 * $recorded, 'and tears none');
$node->stop;
experiment('records in the log, byte by byte', scalar(@longest) . ' of each kind', scalar(@different) . ' different');
done_testing();
