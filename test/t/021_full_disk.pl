# 021_full_disk.pl - a disk that is full makes a record fail and changes nothing; with room again the service goes on.

use strict;
use warnings FATAL => 'all';

# A small file system of its own, in a mount namespace: the test starts itself anew in one.
BEGIN {
    my @namespace = qw(unshare --user --map-current-user --keep-caps --mount);
    if (!$ENV{KEYPOOL_FULL_DISK} && system("@namespace true 2>/dev/null") == 0) {
        $ENV{KEYPOOL_FULL_DISK} = 1;
        exec @namespace, $^X, (map { "-I$_" } @INC), $0;
    }
}

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'no mount namespace may be made here' unless $ENV{KEYPOOL_FULL_DISK};

my $disk = "$PostgreSQL::Test::Utils::tmp_check/disk";
mkdir $disk or die "$disk: $!";
system_or_bail('mount', '-t', 'tmpfs', '-o', 'size=96m', 'keypool', $disk);
$PostgreSQL::Test::Utils::tmp_check = $disk;
my $node = new_cluster('full', init => { extra => ['--wal-segsize=1'] }, conf => "min_wal_size = 2MB\nmax_wal_size = 4MB\nwal_recycle = off\n");

my $key = $node->safe_psql('postgres', q{SELECT keypool_add_key('p', 'a', 'sk-a')});
my $ballast = "$disk/ballast";

sub fill {
    open my $file, '>', $ballast or die "$ballast: $!";
    binmode $file;
    while (1) { syswrite($file, "\0" x 65536) // last; }
    close $file;
    return;
}

# Records until one fails; how many were acknowledged, and what the failure was.
sub record_until_failure {
    my $done = 0;
    while ($done < 200_000) {
        my ($output, $errors) = ('', '');
        my $script = "SELECT keypool_record('$key', 7);\n" x 500;
        my $status = IPC::Run::run([ 'psql', '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres') ],
            '<', \$script, '>', \$output, '2>', \$errors);
        $done += () = $output =~ /\n/g;
        return ($done, $errors) unless $status;
    }
    return ($done, '');
}

my $expected = 0;
my $rounds = rounds(2, 10);
my $failures = 0;
for my $round (1 .. $rounds) {
    fill();
    my ($done, $failure) = record_until_failure();
    $expected += $done;
    ++$failures if isnt($failure, '', "round $round: a record fails when the disk is full");
    unlink $ballast;
    # PostgreSQL ends itself if it cannot write WAL, and recovers when it is started.
    $node->stop('immediate', fail_ok => 1);
    unlink $node->data_dir . '/postmaster.pid';
    $node->{_pid} = undef;
    $node->start;
    my ($requests, $tokens) = split /\|/, $node->safe_psql('postgres', q{SELECT total_requests, total_tokens FROM keypool_list_keys('p')});
    ok($requests >= $expected && $requests <= $expected + 1 && $tokens == 7 * $requests, "round $round: what was acknowledged is there, and no more")
      or diag("$requests requests, $tokens tokens, $expected acknowledged");
    $expected = $requests;
    is($node->safe_psql('postgres', q{SELECT status FROM keypool_try_select('p')}), 'ok', "round $round: and with room the service goes on");
}
experiment('full disk during record', "$rounds times, $expected records, $failures failures", '0 records lost, 0 invented');
$node->stop;
done_testing();
