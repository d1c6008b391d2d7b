# KeypoolCluster - a throw-away PostgreSQL cluster with a keyring and the extension in it, and sessions to talk to it.
package KeypoolCluster;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Spec;
use List::Util qw(sum0);
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More ();
use Time::HiRes qw(usleep);

our @EXPORT = qw(new_cluster keyring_of new_master_key write_keyring no_checksums open_session failure_of crash
  children_of files_with load_command begin_load end_load rounds experiment);

# Why a test dies is told where its results are told, not only in its log, which is gone with the cluster.
$SIG{__DIE__} = sub { Test::More::diag("died: $_[0]") if defined $^S && !$^S; return; };

# A node named $name, started, with a keyring of one master key "primary" and the extension in the database postgres.
# $param{conf} is added to postgresql.conf, $param{init} goes to init(). With $param{stopped} it is not started.
sub new_cluster {
    my ($name, %param) = @_;
    my $node = PostgreSQL::Test::Cluster->new($name);
    my %init = %{ $param{init} // {} };
    $node->init(%init, extra => [ '--encoding=UTF8', '--locale=C', @{ $init{extra} // [] } ]);
    write_keyring(keyring_of($node), new_master_key('primary'));
    $node->append_conf('postgresql.conf', "max_connections = 100\nshared_buffers = 32MB\nautovacuum = off\n"
          . "log_statement = none\nkeypool.master_key_file = '" . keyring_of($node) . "'\n" . ($param{conf} // ''));
    return $node if $param{stopped};
    $node->start;
    $node->safe_psql('postgres', 'CREATE EXTENSION keypool CASCADE');
    return $node;
}

# What initdb is told so that a node has no checksums: from PostgreSQL 18 on it makes them unless it is told.
sub no_checksums {
    my ($version) = run_command([ 'initdb', '--version' ]);
    return $version =~ /PostgreSQL\) (\d+)/ && $1 >= 18 ? ('--no-data-checksums') : ();
}

# The path of a node's keyring: outside of its data directory.
sub keyring_of { my ($node) = @_; return File::Spec->rel2abs($node->basedir . '/keyring'); }

# A line of a keyring with a fresh random key.
sub new_master_key {
    my ($id) = @_;
    open my $random, '<:raw', '/dev/urandom' or die "/dev/urandom: $!";
    read($random, my $bytes, 32) == 32 or die "/dev/urandom: $!";
    return "$id:" . encode_base64($bytes, '');
}

# Puts a keyring of these lines in place in one step, with mode 0600.
sub write_keyring {
    my ($path, @lines) = @_;
    my $fresh = "$path.new";
    unlink $fresh;
    open my $file, '>', $fresh or die "$fresh: $!";
    chmod 0600, $fresh;
    print $file map { "$_\n" } @lines;
    close $file or die "$fresh: $!";
    rename $fresh, $path or die "$path: $!";
    return;
}

# A session that stays open: a KeypoolSession.
sub open_session {
    my ($node, $database) = @_;
    my $psql = $node->background_psql($database // 'postgres', on_error_stop => 0);
    my $session = bless { psql => $psql }, 'KeypoolSession';
    $session->ask('\set VERBOSITY verbose');
    return $session;
}

# What a statement fails with in a session of its own, SQLSTATE first; empty if it does not fail.
sub failure_of {
    my ($node, $statement, $database) = @_;
    my (undef, undef, $error) = $node->psql($database // 'postgres', "\\set VERBOSITY verbose\n$statement");
    return KeypoolSession::without_location($error);
}

# The processes that a process has started.
sub children_of {
    my ($parent) = @_;
    my @children;
    for my $stat (glob '/proc/[0-9]*/stat') {
        open my $file, '<', $stat or next;
        my $line = <$file> // next;
        my ($pid, $state, $ppid) = $line =~ /^(\d+) \(.*\) (\S) (\d+)/s or next;
        push @children, $pid if $ppid == $parent && $state ne 'Z';
    }
    return @children;
}

sub is_gone {
    my ($pid) = @_;
    open my $file, '<', "/proc/$pid/stat" or return 1;
    my $line = <$file> // return 1;
    return $line =~ /^\d+ \(.*\) [ZX]/s;
}

# Kills a node's every process at once with signal 9, and returns when they are gone. The postmaster is halted first, so
# that it can neither clean up after its children nor start more. Nobody may have waited for it yet, so that its number
# is still taken; hence its lock files go too.
sub crash {
    my ($node) = @_;
    my $postmaster = $node->{_pid};
    kill 'STOP', $postmaster;
    my @children = children_of($postmaster);
    kill 'KILL', @children;
    $node->kill9;
    for my $pid ($postmaster, @children) {
        for (1 .. 10000) { last if is_gone($pid); usleep(1000); }
        die "process $pid does not end" unless is_gone($pid);
    }
    unlink $node->data_dir . '/postmaster.pid', $node->host . '/.s.PGSQL.' . $node->port . '.lock';
    return;
}

# The files below a folder that hold a text, each as its path within.
sub files_with {
    my ($text, $folder) = @_;
    my @found;
    my @todo = ($folder);
    while (defined(my $path = shift @todo)) {
        if (-d $path && !-l $path) {
            opendir my $dir, $path or next;
            push @todo, map { "$path/$_" } grep { !/^\.\.?$/ } readdir $dir;
        } elsif (-f $path) {
            push @found, substr($path, length($folder) + 1) if index(slurp_file($path), $text) >= 0;
        }
    }
    return sort @found;
}

# How often an experiment is done, or for how many seconds: briefly in `make check`, at length in `make soak`.
sub rounds { my ($brief, $long) = @_; return $ENV{KEYPOOL_SOAK} ? $long : $brief; }

# Notes what an experiment tried, how often, and what was lost; `make soak` makes a table of these lines.
sub experiment {
    my ($name, $tried, $lost) = @_;
    Test::More::note("experiment: $name | $tried | $lost");
    return;
}

# The command line of a pgbench against a node.
sub load_command {
    my ($node, @options) = @_;
    return ('pgbench', '-n', '-h', $node->host, '-p', $node->port, @options, 'postgres');
}

# Starts a pgbench that runs a script against a node, and returns it: {errors} is what it complains of. With the option
# -T it ends after that time, or when the server is gone. Every call that is acknowledged is logged on the clients' side.
my $loads = 0;

sub begin_load {
    my ($node, $script, @options) = @_;
    my $path = $node->basedir . '/load' . ++$loads;
    append_to_file("$path.sql", "$script\n");
    my %load = (path => $path, output => '', errors => '');
    $load{run} = IPC::Run::start(
        [ load_command($node, '-M', 'prepared', '-l', "--log-prefix=$path", '-f', "$path.sql", @options) ],
        '>', \$load{output}, '2>', \$load{errors});
    return \%load;
}

# Waits until a load has ended, by itself or because its server is gone, and returns how many calls were acknowledged.
sub end_load {
    my ($load) = @_;
    $load->{run}->finish;
    return sum0(map { scalar(my @lines = split /\n/, slurp_file($_)) } glob "$load->{path}.[0-9]*");
}

package KeypoolSession;

use strict;
use warnings FATAL => 'all';

# Messages without the line of the source that raised them.
sub without_location {
    my ($messages) = @_;
    $messages =~ s/^LOCATION:.*\n?//mg;
    $messages =~ s/^psql:\S+ //mg;
    $messages =~ s/\s+\z//;
    return $messages;
}

# Runs a statement, and returns its rows as psql prints them (unaligned, without a header). What it fails with or warns
# of is in messages() then.
sub ask {
    my ($self, $statement) = @_;
    $self->{psql}{stderr} = '';
    my $rows = $self->{psql}->query($statement);
    $self->{messages} = without_location($self->{psql}{stderr});
    return $rows;
}

sub messages { my ($self) = @_; return $self->{messages}; }

# What a statement fails with or warns of; empty if it does neither.
sub failure {
    my ($self, $statement) = @_;
    $self->ask($statement);
    return $self->{messages};
}

sub close { my ($self) = @_; return $self->{psql}->quit; }

1;
