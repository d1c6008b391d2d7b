# 016_wal_consistency.pl - what is replayed is what was changed, byte by byte, except for the reserved half of a row.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

# wal_log_hints would write the page at the first hint, and then not whole again at the first change.
my $primary = new_cluster('primary', init => { allows_streaming => 1 }, conf => "wal_log_hints = off\ncheckpoint_timeout = 1h\n");
my ($standby, $number) = (undef, 0);

sub on_primary { my ($sql) = @_; return $primary->safe_psql('postgres', $sql); }

sub new_standby {
    $primary->backup('copy' . ++$number);
    $standby = PostgreSQL::Test::Cluster->new("standby$number");
    $standby->init_from_backup($primary, "copy$number", has_streaming => 1);
    $standby->start;
    return;
}

#
# Every key's row on both sides. Where the halves of a row are is taken from the header that defines them.
#
on_primary('CREATE EXTENSION pageinspect');
my $header = slurp_file('src/core/quota/meter.h');
my ($recorded, $reserved, $meter) =
  $header =~ /sizeof\(RecordedMeter\) == (\d+) && sizeof\(ReservedMeter\) == (\d+) && sizeof\(Meter\) == (\d+)/ or die;
my $before_meter = 24 + 16;                              # the row's header, and the id of the key or quota
my $half = $before_meter + 8 + $recorded;                # where the reserved half begins
my $row_size = $before_meter + $meter;

# The rows on the pages of a table as (block, line) => bytes.
sub rows_of {
    my ($of, $table) = @_;
    my %row;
    my @pages = split /\n/, $of->safe_psql('postgres', qq{
        SELECT encode(get_raw_page('$table', block::int), 'hex')
        FROM generate_series(0, pg_relation_size('$table') / 8192 - 1) block});
    for my $block (0 .. $#pages) {
        my $page = pack 'H*', $pages[$block];
        my $lower = unpack 'x12 S', $page;
        for my $line (1 .. ($lower - 24) / 4) {
            my $item = unpack 'x' . (20 + 4 * $line) . 'L', $page;
            my ($offset, $flags, $length) = ($item & 0x7fff, ($item >> 15) & 3, $item >> 17);
            $row{"$table,$block,$line"} = substr $page, $offset, $length if $flags == 1;
        }
    }
    return \%row;
}

# Compares the rows of both sides: how many there are, where the ids and recorded halves differ, and in how many rows the
# reserved halves do.
sub compare_rows {
    $primary->wait_for_catchup($standby, 'replay');
    my ($here, $there) = map { my $of = $_; +{ map { %{ rows_of($of, "keypool.$_") } } 'key_meters', 'quota_meters' } } $primary, $standby;
    my @different = grep { length($here->{$_} // '') != $row_size || length($there->{$_} // '') != $row_size } keys %{ { %$here, %$there } };
    # What is kept for later, behind the reserved half, is the same, too.
    my $without = sub { my ($row) = @_; substr($row, $half, $reserved) = ''; return substr $row, 24; };
    push @different, grep { $without->($here->{$_}) ne $without->($there->{$_}) } keys %$here unless @different;
    my $reserved_differ = @different ? 0 : grep { substr($here->{$_}, $half, $reserved) ne substr($there->{$_}, $half, $reserved) } keys %$here;
    return (scalar(keys %$here), \@different, $reserved_differ);
}

new_standby();
my $keys = 60;
on_primary("SELECT count(keypool_add_key('pool', i::text, 'sk-' || i, settings => jsonb_build_object('account', 'org/' || i % 5))) FROM generate_series(1, $keys) i");
on_primary(q{SELECT count(keypool_set_quota('pool', 'org ' || i, jsonb_build_object('account', 'org/' || i, 'max_tpm', 1000000000))) FROM generate_series(0, 4) i});
on_primary(q{SELECT keypool_set_quota('pool', 'day', '{"max_rph": 1000000000, "max_rpd": 1000000000}'), keypool_set_quota('pool', 'flight', '{"max_in_flight": 1000}')});
my $select = "SELECT key_id, lease FROM keypool_select('pool', 500) \\gset\n";
my @scripts = (
    "$select SELECT keypool_record(:key_id, 11, :lease);",
    "$select SELECT keypool_record(:key_id, 13);",
    "$select SELECT keypool_release(:key_id, :lease);",
    "$select SELECT keypool_mark_429(:key_id, 1, :lease, 'key');\nSELECT keypool_clear_cooldown(:key_id);",
    "$select SELECT keypool_mark_429(:key_id, 1, :lease);\nSELECT keypool_clear_cooldown('pool', NULL);",
    "SELECT keypool_add_key('replaced', 'a', 'sk-' || gen_random_uuid()) AS key_id \\gset\nSELECT keypool_record(:key_id, 1);\nSELECT keypool_delete_key(:key_id);",
);
my ($calls, @different, @failed, $rows, $reserved_differ) = (0);
for my $round (1 .. rounds(2, 20)) {
    my @running = map { begin_load($primary, $_, '-c', 2, '-T', 3) } @scripts;
    sleep(0.8);
    on_primary('CHECKPOINT');    # the first change of every page after it writes the page as a whole
    sleep(0.7);
    on_primary('VACUUM');
    $standby->restart;
    $calls += end_load($_) for @running;
    push @failed, grep { $_ ne '' } map { $_->{errors} } @running;
    ($rows, my $found, $reserved_differ) = compare_rows();
    push @different, @$found;
}
is("@failed", '', 'no call fails under load');
cmp_ok($calls, '>', 1000, 'and there are many');
cmp_ok($rows, '>=', $keys + 7, 'every key and every quota has a row on the standby');
is("@different", '', 'what is recorded of a key or a quota is on the standby byte by byte');
cmp_ok($reserved_differ, '>', 0, 'what is reserved is not');
$standby->stop;

#
# PostgreSQL's own check of every page after each change. PostgreSQL changes rows without WAL, too: hint bits, and the number
# of the command in the transaction. For the WAL of its own tables the check leaves them out, for that of an extension it
# does not. So the rows are read, which sets the hints, and a checkpoint follows, which makes the first change write the
# page as a whole; from there on only what changed is written, and replayed, and checked. How often a key was answered 429 is
# counted by a hint, too: so each 429 comes as a first change.
#
sub replays {
    my ($sql) = @_;
    on_primary($sql);
    my $end = $primary->lsn('insert');
    for (1 .. 1800) {
        my (undef, $there) = eval { $standby->psql('postgres', "SELECT pg_last_wal_replay_lsn() >= '$end'") };
        return 1 if ($there // '') eq 't';
        return 0 if $standby->log_contains('inconsistent page found');
        sleep(0.1);
    }
    die 'the standby does not catch up';
}

on_primary('TRUNCATE keypool.provider_keys, keypool.quotas');
$primary->append_conf('postgresql.conf', "wal_consistency_checking = 'all'");
$primary->restart;
new_standby();

my $added = replays(q{SELECT keypool_add_key('checked', 'a', 'sk-a'), keypool_add_key('checked', 'b', 'sk-b')});
ok($added, 'keypool_add_key is replayed without an inconsistent page');
my ($key, $other) = map { on_primary("SELECT id FROM keypool_list_keys() WHERE key_label = '$_'") } 'a', 'b';
my $settle = 'SELECT count(*) FROM keypool_list_keys(); SELECT count(*) FROM keypool_list_quotas(); CHECKPOINT';
my @steps = (
    [ 'keypool_record', "SELECT keypool_record('$key', i) FROM generate_series(1, 300) i" ],
    [ 'keypool_record of a neighbour', "SELECT keypool_record('$other', i) FROM generate_series(1, 300) i" ],
    [ 'keypool_mark_429', "$settle; SELECT keypool_mark_429('$key', 1)" ],
    [ 'keypool_clear_cooldown', "SELECT keypool_clear_cooldown('$key')" ],
    [ 'keypool_toggle_key', "SELECT keypool_toggle_key('$key', false); SELECT keypool_toggle_key('$key', true)" ],
    [ 'a change of limits', 'UPDATE keypool.provider_keys SET max_rpm = 1000000' ],
    [ 'keypool_record after that', "SELECT keypool_record('$key', 1)" ],
    [ 'keypool_set_quota', q{SELECT count(keypool_set_quota('checked', 'quota ' || i, '{"max_rpm": 1000000}')) FROM generate_series(1, 3) i} ],
    [ 'keypool_record under three quotas', "$settle; SELECT keypool_record('$key', i) FROM generate_series(1, 300) i" ],
    [ 'keypool_mark_429 of a quota', "$settle; SELECT keypool_mark_429('$key', 1, scope => 'quota:quota 2')" ],
    [ 'keypool_clear_cooldown of quotas', "SELECT keypool_clear_cooldown('checked', NULL)" ],
    [ 'a quota that counts by hours', q{SELECT keypool_set_quota('checked', 'quota 1', '{"max_rpm": null, "max_rph": 1000000}')} ],
    [ 'keypool_record after that, too', "SELECT keypool_record('$key', i) FROM generate_series(1, 300) i" ],
    [ 'keypool_delete_quota', q{SELECT count(keypool_delete_quota('checked', 'quota ' || i)) FROM generate_series(1, 3) i} ],
    [ 'keypool_heal', 'SELECT keypool_heal()' ],
    [ 'keypool_grant', q{CREATE ROLE gateway; SELECT keypool_grant('gateway', 'app')} ],
    [ 'keypool_delete_key', "SELECT keypool_delete_key('$other')" ],
    [ 'VACUUM', 'VACUUM' ],
    [ 'keypool_record after a VACUUM', "$settle; SELECT keypool_record('$key', i) FROM generate_series(1, 300) i" ],
    [ 'VACUUM FULL', 'VACUUM FULL keypool.key_meters; VACUUM FULL keypool.quota_meters; VACUUM FULL keypool.provider_keys' ],
    [ 'keypool_record after a VACUUM FULL', "$settle; SELECT keypool_record('$key', i) FROM generate_series(1, 300) i" ],
);
write_keyring(keyring_of($primary), new_master_key('next'), split /\n/, slurp_file(keyring_of($primary)));    # something to heal
on_primary($settle);
my @inconsistent = $added ? () : ('keypool_add_key');
for my $step (@steps) {
    my ($name, $sql) = @$step;
    my $replayed = !@inconsistent && replays($sql);
    push @inconsistent, $name unless $replayed;
    ok($replayed, "$name is replayed without an inconsistent page");
}

# The same once more with a selection in between, and it is found.
ok(replays("$settle; SELECT keypool_record('$key', 1); SELECT FROM keypool_select('checked')"), 'a selection writes nothing that could be checked');
my $file = on_primary(q{SELECT pg_relation_filenode('keypool.key_meters')});
ok(!replays("SELECT keypool_record('$key', 1)"), 'but the next change of its page finds it');
like(slurp_file($standby->logfile), qr{FATAL:  inconsistent page found, rel \d+/\d+/$file, forknum 0, blkno 0\n}, 'in the meter of the key');

$standby->stop('fast', fail_ok => 1);    # it has stopped by itself
$primary->stop;
experiment('rows on a standby, byte by byte', "$calls calls, $rows rows", scalar(@different) . ' different in what is recorded');
experiment('wal_consistency_checking', 1 + @steps . ' kinds of change', scalar(@inconsistent) . ' inconsistent');
done_testing();
