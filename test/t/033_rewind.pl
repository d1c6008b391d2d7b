# 033_rewind.pl - a primary that went on after its standby was promoted is rewound, and follows: what is recorded is the same
# on both.

use strict;
use warnings FATAL => 'all';

use File::Copy qw(copy);
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

# A primary can be rewound if its hints are in the log: by either of these.
my %kind = (
    hints     => { conf => "wal_log_hints = on\n", extra => [ no_checksums() ] },
    checksums => { conf => '',                     extra => ['--data-checksums'] },
);
my $select = "SELECT key_id, lease FROM keypool_select('pool', 500) \\gset\n";
my @scripts = (
    "$select SELECT keypool_record(:key_id, 11, :lease);",
    "$select SELECT keypool_release(:key_id, :lease);",
    "$select SELECT keypool_mark_429(:key_id, 0);\nSELECT keypool_clear_cooldown(:key_id);",
);

# All that is configured and recorded, not what is reserved.
my $recorded = q{
    SELECT * FROM keypool.provider_keys ORDER BY id;
    SELECT key_id, regexp_replace(meter::text, ' turn=.*', '') FROM keypool.key_meters ORDER BY key_id;
    SELECT quota_id, regexp_replace(meter::text, ' turn=.*', '') FROM keypool.quota_meters ORDER BY quota_id};
my $total = 'SELECT sum(total_requests) FROM keypool_list_keys()';

sub begin_loads { my ($node, $seconds) = @_; return map { begin_load($node, $_, '-c', 2, '-T', $seconds) } @scripts; }

my ($rewound, $same, $calls) = (0, 0, 0);
for my $kind (sort keys %kind) {
    for my $round (1 .. rounds(1, 5)) {
        my $old = new_cluster("old_$kind$round", conf => "wal_keep_size = 256MB\n$kind{$kind}{conf}",
            init => { allows_streaming => 1, extra => $kind{$kind}{extra} });
        $old->safe_psql('postgres', "SELECT count(keypool_add_key('pool', i::text, 'sk-' || i)) FROM generate_series(1, 30) i");
        $old->backup('copy');
        my $new = PostgreSQL::Test::Cluster->new("new_$kind$round");
        $new->init_from_backup($old, 'copy', has_streaming => 1);
        $new->start;

        # Both are primaries for a while, and both serve. What the old one does then is to be forgotten.
        my @running = begin_loads($old, 60);
        sleep(0.5);
        $old->safe_psql('postgres', 'CHECKPOINT');
        sleep(0.5);
        $new->promote;
        my @other = begin_loads($new, 1);
        $old->safe_psql('postgres', "SELECT keypool_add_key('only_old', 'a', 'sk'); SELECT keypool_delete_key(id) FROM keypool_list_keys('pool') WHERE key_label LIKE '1%'");
        sleep(0.5);
        $round % 2 ? crash($old) : $old->stop;
        $calls += end_load($_) for @running, @other;
        $new->safe_psql('postgres', 'CHECKPOINT');    # pg_rewind reads the timeline from the control file
        my $diverged = $new->safe_psql('postgres', $total);

        copy($old->data_dir . '/postgresql.conf', $old->basedir . '/postgresql.conf') or die;
        command_ok([ 'pg_rewind', '--target-pgdata', $old->data_dir, '--source-server', $new->connstr('postgres'), '--no-sync' ],
            "a primary is rewound, $kind in the log, round $round");
        copy($old->basedir . '/postgresql.conf', $old->data_dir . '/postgresql.conf') or die;
        $old->append_conf('postgresql.conf', "primary_conninfo = '" . $new->connstr . "'\n");
        $old->set_standby_mode;
        $old->start;
        ++$rewound;

        # It follows, beneath a load.
        @running = begin_loads($new, 1);
        $calls += end_load($_) for @running;
        $new->wait_for_catchup($old, 'replay', $new->lsn('write'));
        cmp_ok($new->safe_psql('postgres', $total), '>', $diverged, 'the new primary goes on');
        my $there = $new->safe_psql('postgres', $recorded);
        my $here  = $old->safe_psql('postgres', $recorded);
        is($here, $there, 'and what is recorded is the same on both');
        ++$same if $here eq $there;
        unlike($here, qr/only_old/, 'without what only the old one had');
        $new->stop;
        $old->promote;
        is($old->safe_psql('postgres', q{SELECT status FROM keypool_try_select('pool')}), 'ok', 'and it can take over again');
        $old->stop;
    }
}
experiment('pg_rewind of a primary that went on', "$rewound times, $calls calls", $rewound - $same . ' with a difference');
done_testing();
