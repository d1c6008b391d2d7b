# 028_master_key_command.pl - the command that prints the keyring can always be stopped, leaves nothing behind, and is not run
# again for every call.

use strict;
use warnings FATAL => 'all';

use File::Spec;
use IPC::Run;
use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node    = new_cluster('command');
my $keyring = keyring_of($node);
my $folder  = File::Spec->rel2abs($node->basedir);
my $select  = q{SELECT status FROM keypool_try_select('p')};
$node->safe_psql('postgres', q{SELECT keypool_add_key('p', 'a', 'sk-a')});
my $version = $node->safe_psql('postgres', 'SHOW server_version_num');
my $event   = $version >= 170000 ? 'KeypoolMasterKeyCommand' : 'Extension';

# A command is a script; its folder is not in the server's way.
sub set_command {
    my ($body) = @_;
    write_keyring("$folder/command", $body);
    $node->append_conf('postgresql.conf', "keypool.master_key_command = 'exec sh $folder/command'\n");
    $node->reload;
    ok($node->poll_query_until('postgres', qq{SELECT current_setting('keypool.master_key_command') = 'exec sh $folder/command'}), 'the command is set');
    return;
}

sub begin {
    my ($statement) = @_;
    my %call = (output => '', errors => '');
    $call{run} = IPC::Run::start([ 'psql', '-XAt', '-v', 'VERBOSITY=verbose', '-h', $node->host, '-p', $node->port, '-c', $statement, 'postgres' ],
        '>', \$call{output}, '2>', \$call{errors});
    return \%call;
}

# The processes that run with this argument.
sub running {
    my ($argument) = @_;
    my @found;
    for my $path (glob '/proc/[0-9]*/cmdline') {
        open my $file, '<', $path or next;
        local $/;
        my %words = map { $_ => 1 } split /\0/, <$file> // '';
        push @found, $path if $words{$argument};
    }
    return scalar @found;
}

# Commands that would end long after this test, each with a sleep of its own length to be found by.
my $length   = 100_000 + $$;
my %stubborn = (
    'one that sleeps'                   => 'sleep %d',
    'one under timeout'                 => 'timeout %1$d sleep %1$d',
    'one that ignores signals'          => 'trap "" INT TERM HUP QUIT; sleep %d',
    'one that has closed its output'    => 'exec >&-; sleep %d',
    'one whose child holds its output'  => 'sleep %1$d & sleep %1$d',
);
my @ways = (
    [ 'cancelled',  'SELECT pg_cancel_backend(pid)',    '',                               qr/57014: canceling statement due to user request/ ],
    [ 'terminated', 'SELECT pg_terminate_backend(pid)', '',                               qr/57P01: terminating connection/ ],
    [ 'timed out',  'SELECT count(*)',                  'SET statement_timeout = 1000; ', qr/57014: canceling statement due to statement timeout/ ],
);
for my $name (sort keys %stubborn) {
    for my $way (@ways) {
        my ($end, $signal, $before, $message) = @$way;
        ++$length;
        set_command(sprintf $stubborn{$name}, $length);
        my $call = begin("$before$select");
        my $caller = q{FROM pg_stat_activity WHERE query LIKE '%try_select%' AND pid <> pg_backend_pid()};
        ok($node->poll_query_until('postgres', "SELECT count(*) = 1 $caller AND wait_event = '$event'"), "$name is waited for");
        my $began = time;
        $node->safe_psql('postgres', "$signal $caller");    # which may not wait just then, but look whether the command has ended
        $call->{run}->finish;
        cmp_ok(time - $began, '<', 20, "$name is $end at once");
        like($call->{errors}, $message, 'and the caller is told');
        is(running($length), 0, 'and none of its processes is left');
    }
}

# What it prints until it exits counts, whatever it leaves behind; that is ended.
++$length;
set_command("cat $keyring; sleep $length &");
is($node->safe_psql('postgres', $select), 'ok', 'a command that leaves a process with its output is done when it exits');
is(running($length), 0, 'and the process is ended');
set_command("trap '' TERM; (trap '' TERM; sleep $length) & cat $keyring");
is($node->safe_psql('postgres', $select), 'ok', 'also one that ignores SIGTERM');
is(running($length), 0, 'and it is ended, too');
set_command("cat $keyring; exec >&-; sleep 0.2; exit 4");
like(failure_of($node, $select), qr/^ERROR:  KP401: the master key command failed: child process exited with exit code 4/, 'the exit code counts, also after its output has ended');
set_command("kill -9 \$\$");
like(failure_of($node, $select), qr/^ERROR:  KP401: the master key command failed: child process was terminated by signal 9/, 'and a signal does');

# What it is given: no input, no descriptor of the server's, no signal that is ignored or blocked. The shell itself reads its signals:
# it blocks all of them while it starts a program.
set_command("cat >$folder/input; ls -l /proc/\$\$/fd >$folder/descriptors; while read -r line; do case \$line in SigBlk*|SigIgn*) echo \"\$line\";; esac; done </proc/\$\$/status >$folder/signals; cat $keyring");
is($node->safe_psql('postgres', $select), 'ok', 'a command looks at what it was given');
is(slurp_file("$folder/input"), '', 'no input');
like(slurp_file("$folder/descriptors"), qr{ 0 -> /dev/null$}m, 'which is empty for good');
unlike(slurp_file("$folder/descriptors"), qr/socket|anon_inode|pgdata/, 'no socket, file or event of the server');
like(slurp_file("$folder/signals"), qr/^SigBlk:\s+0+\nSigIgn:\s+[0-9a-f]{8}[08]0{7}$/m, 'no signal is blocked or ignored');    # but for two of the C library's own

# Runs, each with the number of locks on keypool's tables that were held then.
my $psql = "psql -XAt -h " . $node->host . " -p " . $node->port . " postgres";
my $note = qq{$psql -c "SELECT count(*) FROM pg_locks WHERE granted AND relation IN (SELECT oid FROM pg_class WHERE relnamespace = 'keypool'::regnamespace AND relkind = 'r')" >>$folder/runs};
sub runs { my @runs = -e "$folder/runs" ? split /\n/, slurp_file("$folder/runs") : (); unlink "$folder/runs"; return @runs; }

# Calls something so many times in one session, whatever it raises.
sub repeat {
    my ($session, $count, $statement) = @_;
    $session->ask("DO \$\$ BEGIN FOR i IN 1..$count LOOP BEGIN $statement; EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END \$\$");
    return;
}

my $key = $node->safe_psql('postgres', q{SELECT keypool_key('p', 'a')});
set_command("$note; exit 1");
for my $statement (
    q{PERFORM keypool_try_select('p')}, q{PERFORM keypool_peek('p')}, q{PERFORM keypool_add_key('p', 'b', 'sk-b')},
    qq{PERFORM keypool_set_secret('$key', 'sk-d')}, q{PERFORM keypool_heal()}, q{PERFORM keypool_keyring()}, q{PERFORM keypool_doctor()}, q{INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('p', 'sk-c')})
{
    my $session = open_session($node);
    my $began = time;
    repeat($session, 100, $statement);
    my $most = time - $began < 1 ? 1 : 1 + int((time - $began) / 1);
    my @runs = runs();
    cmp_ok(scalar @runs, '<=', $most, "a command that fails is not run for each of 100 calls: $statement");
    cmp_ok(scalar @runs, '>=', 1, '... but is run');
    is(scalar(grep { $_ > 0 } @runs), 0, '... before a table is locked') unless $statement =~ /^INSERT/;
    $session->close;
}

# A reload makes a session try again at once, and what was missing is there.
my $session = open_session($node);
like($session->failure($select), qr/^ERROR:  KP401: /, 'a command fails');
runs();
set_command("$note; cat $keyring");
is($session->ask($select), 'ok', 'and is tried at once after a reload');
repeat($session, 100, $_) for q{PERFORM keypool_try_select('p')}, q{PERFORM keypool_add_key('q', 'b', 'sk-' || random())};
is(scalar(my @runs = runs()), 1, 'one that works is run once');
$session->close;

$node->stop;
done_testing();
