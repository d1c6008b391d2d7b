# 031_untested_server.pl - in a server of an untested version the server itself logs changes of meters, whole pages of them, and all
# sessions are told of all keys; what is recorded is the same as elsewhere, after a crash and on a standby, too. Elsewhere keypool logs
# the bytes that have changed, and no others.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_cluster('node', init => { allows_streaming => 1 },
    conf => "checkpoint_timeout = 1h\nmax_wal_size = 10GB\nwal_log_hints = off\nfull_page_writes = off\nwal_keep_size = 1GB\nshared_buffers = 32MB\n");
my %database = (tested => 'postgres', untested => 'untested');
$node->safe_psql('postgres', 'CREATE DATABASE untested');
$node->safe_psql('untested', 'CREATE EXTENSION keypool CASCADE; ALTER DATABASE untested SET keypool.test_untested_server = on');
$node->safe_psql($_, 'CREATE EXTENSION pageinspect') for values %database;
$node->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'copy', has_streaming => 1);
$standby->start;

sub value { my ($server, $sql) = @_; return $node->safe_psql($database{$server}, $sql); }

#
# The same calls, at the same times, of the same keys, which lie in the same places of their pages.
#
my @keys = map { sprintf '00000000-0000-8000-8000-%012d', $_ } 1 .. 5;
my $add = 'INSERT INTO keypool.provider_keys (id, provider_id, key_value, account) VALUES '
  . join(', ', map { my $n = 0 + substr $_, -3; "('$_', 'pool', 'sk-$_', " . ($n > 2 ? "'org/$n'" : 'NULL') . ')' } @keys)
  . q{; INSERT INTO keypool.quotas (id, provider_id, name, account) VALUES
    ('00000000-0000-8000-8000-000000000101', 'pool', 'org', 'org'), ('00000000-0000-8000-8000-000000000102', 'pool', 'fourth', 'org/4'),
    ('00000000-0000-8000-8000-000000000103', 'pool', 'all', NULL)};

# Calls of all kinds, many of them in the same second or millisecond, some after a window or an hour has passed.
sub some_calls {
    my ($count, $seed) = @_;
    srand $seed;
    my $now   = 1767268800;    # 2026-01-01 12:00:00 UTC
    my @calls = ('CREATE TEMP TABLE open (number serial, key uuid, lease text)');
    for (1 .. $count) {
        $now += (0, 0, 0.001, 0.5, 1, 7, 70, 3600)[ rand 8 ];
        my $key    = $keys[ rand @keys ];
        my $tokens = int((1, 300, 70_000, 1_000_000_000)[ rand 4 ] * rand);
        my $lease  = "(SELECT lease FROM open WHERE key = '$key' ORDER BY number DESC LIMIT 1 OFFSET " . int(rand 3) . ')';
        push @calls, "SELECT set_config('keypool.test_now', to_timestamp($now)::text, false)";
        push @calls, (
            "SELECT keypool_record('$key', $tokens)",
            "SELECT keypool_record('$key', $tokens, $lease)",
            "INSERT INTO open (key, lease) SELECT key_id, lease FROM keypool_select('pool', $tokens)",
            "INSERT INTO open (key, lease) SELECT key_id, lease FROM keypool_select('pool', $tokens)",
            "SELECT keypool_release('$key', $lease)",
            "SELECT keypool_mark_429('$key', 5, $lease)",
            "SELECT keypool_clear_cooldown('$key')",
            "SELECT keypool_clear_cooldown('pool', NULL)",
        )[ rand 8 ];
    }
    return join(";\n", @calls) . ";\n";
}

# What lies in the recorded halves of all meters, byte by byte.
sub recorded {
    my ($where, $server) = @_;
    return $where->safe_psql($database{$server}, join ' UNION ALL ', map { qq{
        SELECT '$_ ' || encode(substr(t_data, 1, 16), 'hex') || ' ' || encode(substr(t_data, 17, 8 + 4968), 'hex')
        FROM generate_series(0, pg_relation_size('keypool.$_') / current_setting('block_size')::int - 1) block,
            LATERAL heap_page_items(get_raw_page('keypool.$_', block::int)) WHERE lp_flags = 1} } qw(key_meters quota_meters)) . "\n";
}

# All that is before this is on the disk.
sub flush_wal { value('tested', 'CREATE TABLE IF NOT EXISTS flushed (); DROP TABLE flushed'); return; }

sub end_of_wal {
    my ($server) = @_;
    my $end = value($server, 'SELECT pg_current_wal_insert_lsn()');
    value($server, 'SELECT pg_switch_wal()');
    return $end;
}

# The records of changes of meters in a piece of WAL: [place, length, line of pg_waldump].
sub meter_records {
    my ($server, $from, $to) = @_;
    my $file = value($server, q{SELECT oid || '/(?:' || pg_relation_filenode('keypool.key_meters') || '|' || pg_relation_filenode('keypool.quota_meters') || ')' FROM pg_database WHERE datname = current_database()});
    my ($dump) = run_command([ 'pg_waldump', '--path', $node->data_dir . '/pg_wal', '--start', $from, '--end', $to, '--rmgr', 'Generic' ]);
    my @records;
    for my $line (split /\n/, $dump) {
        my ($total, $high, $low) = $line =~ m{len \(rec/tot\): +\d+/ +(\d+), .*lsn: ([0-9A-F]+)/([0-9A-F]+),.*rel \d+/$file } or next;
        push @records, [ (hex($high) << 32) + hex($low), $total, $line ];
    }
    return @records;
}

# Bytes of the WAL, without the headers of its pages.
sub wal_bytes {
    my ($at, $length) = @_;
    my ($segment_size, $page_size) = (16 * 1024 * 1024, 8192);
    my $bytes = '';
    while (length $bytes < $length) {
        my $offset = $at % $page_size;
        if ($offset == 0) {
            $at += $offset = $at % $segment_size == 0 ? 40 : 24;
        }
        my $name = sprintf '%s/pg_wal/%08X%08X%08X', $node->data_dir, 1, $at >> 32, ($at & 0xFFFFFFFF) / $segment_size;
        open my $wal, '<:raw', $name or die "$name: $!";
        seek $wal, $at % $segment_size, 0;
        my $wanted = $length - length $bytes;
        $wanted = $page_size - $offset if $wanted > $page_size - $offset;
        read($wal, my $read, $wanted) == $wanted or die "$name: $!";
        $bytes .= $read;
        $at += $wanted;
    }
    return $bytes;
}

my $calls = some_calls(rounds(6000, 100_000), 20260101);
my (%records, %meters, %failed);
for my $server ('tested', 'untested') {
    value($server, $add);
    my $from = value($server, 'SELECT pg_current_wal_insert_lsn()');
    my (undef, undef, $errors) = $node->psql($database{$server}, $calls, on_error_stop => 0);
    $failed{$server} = join ' ', sort { $a cmp $b } $errors =~ /ERROR:  (.*)/g;
    my $to = end_of_wal($server);
    $records{$server} = [ meter_records($server, $from, $to) ];
    $meters{$server} = value($server, 'SELECT key_id, meter FROM keypool.key_meters UNION ALL SELECT quota_id, meter FROM keypool.quota_meters ORDER BY 1');
}
my ($most) = sort { $b->[1] <=> $a->[1] } @{ $records{tested} };
note 'records: ' . @{ $records{tested} } . ", the longest has $most->[1] bytes";
cmp_ok(scalar(@{ $records{tested} }), '>', 1000, 'there are many records of changes of meters');
is($failed{untested}, $failed{tested}, 'the same calls fail in an untested server');
is($meters{untested}, $meters{tested}, 'and make the same meters of the same keys and quotas');
is(scalar(@{ $records{untested} }), scalar(@{ $records{tested} }), 'with as many records in the log');
is(scalar(grep { $_->[2] !~ / FPW/ } @{ $records{untested} }), 0, 'which hold whole pages there');
is(scalar(grep { $_->[2] =~ / FPW/ } @{ $records{tested} }), 0, 'and none elsewhere');

#
# What the log makes of it: on a standby, and after a crash that loses all pages that were not written.
#
my %before = map { $_ => recorded($node, $_) } keys %database;
is($before{untested}, $before{tested}, 'what is recorded has the same bytes in both');
flush_wal();
$node->wait_for_catchup($standby, 'replay', $node->lsn('flush'));
crash($node);
$node->start;
for my $server ('tested', 'untested') {
    ok(recorded($standby, $server) eq $before{$server}, "$server: a standby has those, too");
    ok(recorded($node, $server) eq $before{$server}, "$server: and the primary after a crash");
}
$standby->stop;

#
# Where nothing is reserved, keypool logs what a comparison of the pages before and after finds: all bytes that have changed, and no
# piece that begins or ends with one that has not. Pieces with less than 6 bytes in between are one, as are all totals; after more
# than 6 minutes without use the history is logged whole.
#
my ($first_byte, $recorded_end) = (16, 16 + 8 + 4968);
my ($totals, $totals_end) = (16 + 8, 16 + 8 + 48);
my $history = 16 + 8 + 48 + 16 + 16 + 8 + 24 + 2 * 48 + 64 * 24;
my $history_end = $history + 60 * 8 + 60 * 2;

sub pages { return map { ("SELECT '$_ ' || block, encode(get_raw_page('keypool.$_', block::int), 'hex') FROM generate_series(0, pg_relation_size('keypool.$_') / 8192 - 1) block") } qw(key_meters quota_meters); }

# Runs a script whose calls touch no reserved slot; returns for each call the pages after it, by table and block, and where the WAL ended.
sub run_watched {
    my ($seed, $count) = @_;
    srand $seed;
    my $now = 1767268800 + 86400 * 4000;
    my @script = ('\set QUIET on', '\pset format unaligned', '\pset tuples_only on', 'SELECT pg_current_wal_insert_lsn()', pages());
    for (1 .. $count) {
        $now += (0, 0, 0.001, 0.5, 1, 7, 70, 500, 3600, 90_000)[ rand 10 ];
        my $key = $keys[ rand @keys ];
        my $tokens = int((1, 300, 70_000, 1_000_000_000)[ rand 4 ] * rand);
        push @script, "SELECT NULL FROM set_config('keypool.test_now', to_timestamp($now)::text, false)",
          'SELECT NULL FROM ' . ("keypool_record('$key', $tokens)", "keypool_record('$key', $tokens, NULL, $tokens / 2, $tokens / 3, $tokens)", "keypool_mark_429('$key', 5, scope => 'key')",
            "keypool_mark_429('$key', 5)", "keypool_clear_cooldown('$key')")[ rand 5 ],
          'SELECT pg_current_wal_insert_lsn()', pages();
    }
    my @steps;
    for (split /\n/, value('tested', join "\n", map { /^\\/ ? $_ : "$_;" } @script)) {
        if (m{^([0-9A-F]+)/([0-9A-F]+)$}) { push @steps, { end => (hex($1) << 32) + hex $2 }; }
        elsif (/^(\w+ \d+)\|([0-9a-f]+)$/) { $steps[-1]{pages}{$1} = pack 'H*', $2; }
    }
    return @steps;
}

# The rows of a page: where the user's data of each begins.
sub rows_of {
    my ($page) = @_;
    my $lower = unpack 'x12 S', $page;
    return grep { defined } map {
        my $line = unpack 'L', substr $page, 24 + 4 * $_, 4;
        (($line >> 15) & 3) == 1 ? ($line & 0x7FFF) + 24 : undef
    } 0 .. ($lower - 24) / 4 - 1;
}

# The pieces of a record, by relation and block: [offset, bytes].
sub pieces_of {
    my ($record) = @_;
    my ($at, $file, @blocks, %pieces) = (24, '');
    while (@blocks < 4 && $at + 4 <= length $record && ord(substr $record, $at, 1) == @blocks) {
        my (undef, $flags, $size) = unpack 'CCS', substr $record, $at, 4;
        $at += 4;
        die 'an image' if $flags & 0x10;
        if (!($flags & 0x80)) { $file = unpack 'x8 L', substr $record, $at, 12; $at += 12; }
        push @blocks, [ "$file " . unpack('L', substr $record, $at, 4), $size ];
        $at += 4;
    }
    for (@blocks) {
        my ($block, $size) = @$_;
        my $end = $at + $size;
        while ($at < $end) {
            my ($offset, $length) = unpack 'SS', substr $record, $at, 4;
            push @{ $pieces{$block} }, [ $offset, substr $record, $at + 4, $length ];
            $at += 4 + $length;
        }
    }
    die 'a record that is not understood' if $at != length $record;
    return \%pieces;
}

# What is wrong with the pieces that were logged for a page, row by row; empty if nothing is.
sub wrong {
    my ($before, $after, @pieces) = @_;
    my ($replayed, $end) = ($before, -100);
    for (@pieces) {
        my ($offset, $bytes) = @$_;
        substr $replayed, $offset, length $bytes, $bytes;
        return "a piece at $offset is not in order, or too near" if $offset < $end + 6;
        $end = $offset + length $bytes;
    }
    for my $row (rows_of($after)) {
        my ($from, $size) = ($row + $first_byte, $recorded_end - $first_byte);
        return "the row at $row is not replayed" if substr($replayed, $from, $size) ne substr($after, $from, $size);
        for (@pieces) {
            my ($offset, $last) = ($_->[0], $_->[0] + length($_->[1]) - 1);
            next if $offset < $row || $offset >= $row + 16 + 6552;
            return 'a piece of a reserved half' if $last >= $row + $recorded_end;
            my $whole_history = $offset <= $row + $history && $last >= $row + $history_end - 1;
            next if $whole_history;
            my $changes = substr($before, $offset, $last - $offset + 1) ^ substr($after, $offset, $last - $offset + 1);
            while ($changes =~ /\0{6,}/g) {
                return "unchanged bytes in the piece $offset to $last" if $offset + $-[0] < $row + $totals || $offset + $+[0] > $row + $totals_end;
            }
            return "the piece $offset to $last begins or ends with an unchanged byte"
              if substr($before, $offset, 1) eq substr($after, $offset, 1) || substr($before, $last, 1) eq substr($after, $last, 1);
        }
    }
    return '';
}

my ($compared, $pieces, @wrong) = (0, 0);
{
    # Calls that are open are over by now: their keys have none.
    my @steps = run_watched(31, rounds(300, 3000));
    my $from = sprintf '%X/%X', $steps[0]{end} >> 32, $steps[0]{end} & 0xFFFFFFFF;
    my @logged = meter_records('tested', $from, end_of_wal('tested'));
    my %name = map { value('tested', "SELECT pg_relation_filenode('keypool.$_')") => $_ } qw(key_meters quota_meters);
    for my $i (1 .. $#steps) {
        my @of_call = grep { $_->[0] >= $steps[ $i - 1 ]{end} && $_->[0] < $steps[$i]{end} } @logged;
        push @wrong, "call $i: " . @of_call . ' records' if @of_call > 1;
        my $found = @of_call ? pieces_of(wal_bytes($of_call[0][0], $of_call[0][1])) : {};
        my %of_page = map { my ($file, $block) = split / /; ("$name{$file} $block" => $found->{$_}) } keys %$found;
        for my $page (sort keys %{ $steps[$i]{pages} }) {
            my $problem = wrong($steps[ $i - 1 ]{pages}{$page}, $steps[$i]{pages}{$page}, @{ $of_page{$page} // [] });
            push @wrong, "call $i, $page: $problem" if $problem;
            $pieces += @{ $of_page{$page} // [] };
        }
        $compared += @of_call;
    }
}
cmp_ok($compared, '>', 150, "records were compared with the pages: $pieces pieces");
is(join("\n", @wrong[ 0 .. ($#wrong > 4 ? 4 : $#wrong) ]), '', 'they hold all that has changed, and nothing else');

#
# That it is the server that logs there shows in what only it does: it leaves zeros between the lines and the rows of a page.
#
my ($lower, $upper) = split /\|/, value('tested', q{SELECT lower, upper FROM page_header(get_raw_page('keypool.key_meters', 0))});
my %file = map { $_ => $node->data_dir . '/' . value($_, q{SELECT pg_relation_filepath('keypool.key_meters')}) } keys %database;
cmp_ok($upper - $lower, '>', 8, 'a page of meters has room between its lines and its rows');
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
    my $byte = value($server, "SELECT get_byte(get_raw_page('keypool.key_meters', 0), $lower + 4)");
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
experiment('records in the log against pages, byte by byte', "$compared records, $pieces pieces", scalar(@wrong) . ' different');
done_testing();
