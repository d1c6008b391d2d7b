# 030_build.pl - make's goals do what they are named for: side by side, several at once, and in a folder elsewhere.
#
# What is told apart here is what make runs, and in which order; a stand-in for the compiler makes its output an empty
# file. That the real one finds its headers from elsewhere is tried with two files.

use strict;
use warnings FATAL => 'all';

use Cwd;
use File::Path qw(make_path);
use PostgreSQL::Test::Utils;
use Test::More;

my $scratch = getcwd . "/" . PostgreSQL::Test::Utils::tempdir;
my $tree    = "$scratch/tree";
make_path($tree);
system('tar -cf - --exclude=./build --exclude=./tmp_check --exclude="*.[od]" --exclude="*.so" . | tar -C ' . $tree . ' -xf -') == 0 or die;

# A program in a folder of the copy, in place of the one that is there, if one is.
sub write_program {
    my ($path, @lines) = @_;
    unlink $path;
    append_to_file($path, join("\n", '#!/bin/bash', @lines, ''));
    chmod 0755, $path or die "$path: $!";
    return;
}
write_program("$scratch/compiler", 'while [ "$1" != -o ]; do shift; done', ': >"$2"');
my @stand_in = ("CXX=$scratch/compiler", 'AS_ROOT=', "DESTDIR=$scratch/root");

# Runs make as somebody would who has no make around it, and returns what it ends with and what it printed.
sub make {
    my ($folder, @arguments) = @_;
    local @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS)};
    delete @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS)};
    my ($output, $errors) = ('', '');
    my $done = IPC::Run::run([ 'make', '-C', $folder, @arguments ], '>', \$output, '2>', \$errors);
    note $errors if $errors ne '';
    return ($done ? 0 : 1, $output . $errors);
}

sub objects { my ($folder) = @_; return sort glob "$folder/src/*/*.o $folder/src/*/*/*.o"; }

# With everything there already: what `clean` removes must come back.
my ($status) = make($tree, '-j4', @stand_in, 'all');
my @built = objects($tree);
is($status, 0, 'make -j4 all');
cmp_ok(scalar(@built), '>', 40, 'builds the objects');
for my $goals ('clean all', 'clean all install', 'clean install') {
    ($status) = make($tree, '-j4', @stand_in, split / /, $goals);
    my @again = objects($tree);
    is($status, 0, "make -j4 $goals");
    ok(-e "$tree/keypool.so" && @again == @built, 'cleans, and builds after it');
}
($status) = make($tree, '-j4', @stand_in, 'all', 'clean');
my @left = objects($tree);
ok($status == 0 && !-e "$tree/keypool.so" && !@left, 'make -j4 all clean builds, and cleans after it');

# `check` with stand-ins for what needs root, or an hour.
write_program("$tree/test/lib/install-dependencies", 'echo dependencies');
write_program("$tree/test/lib/unprivileged", 'echo "$@ with $(ls keypool.so)"');
for my $goals ('check', 'clean check', 'clean soak') {
    make($tree, @stand_in, 'all');
    append_to_file("$tree/keypool.so", 'of before');
    ($status, my $output) = make($tree, '-j4', @stand_in, split / /, $goals);
    my $layers = $goals =~ /soak/ ? 'test/soak' : 'test/run';
    ok($status == 0 && $output =~ m{^dependencies\n.*^$layers with keypool\.so\n}ms, "make $goals runs $layers") or diag($output);
    is(-s "$tree/keypool.so", $goals =~ /clean/ ? 0 : 9, 'with what it ' . ($goals =~ /clean/ ? 'has built' : 'has found'));
    unlike($output, qr/warning/i, 'and make has nothing to warn of');
}

# Elsewhere: below the tree, and beside it, where the tree is built itself and where it is not; and as packagers do, who name the tree.
for my $where ('below', 'beside', 'for a package of') {
    my ($folder, $makefile) = $where eq 'below' ? ("$tree/elsewhere", '../Makefile') : ("$scratch/beside", "$tree/Makefile");
    my @named = $where =~ /package/ ? ("VPATH=$tree") : ();
    make($tree, $where eq 'below' ? 'all' : 'clean', @stand_in);
    my @before = sort { $a cmp $b } objects($tree), glob "$tree/sql/*";
    make_path($folder);
    ($status) = make($folder, '-f', $makefile, '-j4', @stand_in, @named, 'install');
    my @there = objects($folder);
    is($status, 0, "make -f Makefile in a folder $where the tree");
    is(scalar(@there), scalar(@built), 'builds all objects there');
    is_deeply([ sort { $a cmp $b } objects($tree), glob "$tree/sql/*" ], \@before, 'and none in the tree');
    ($status) = make($folder, '-f', $makefile, @named, 'clean');
    @left = (objects($folder), glob "$folder/keypool.so $folder/sql/*");
    ok($status == 0 && !grep({ -e } @left), 'and cleans up there');
}
my @installed = sort map { chomp; s{.*/}{}r } `find $scratch/root -type f`;
my ($version) = slurp_file('keypool.control') =~ /default_version = '(.*)'/;
my %script = map { s{.*/}{}r => 1 } "keypool--$version.sql", glob 'sql/keypool--*.sql';
is_deeply(\@installed, [ sort 'keypool.so', 'keypool.control', keys %script ], 'what is installed is the library, the control file and all scripts');

# The real compiler, in the tree and in a folder elsewhere: it finds its headers from there, and which folder it was is not in what it makes.
my @two = ('src/core/secret/base64.o', 'src/pg/server/clock.o');
($status, my $output) = make("$scratch/beside", '-f', "$tree/Makefile", @two);
ok($status == 0 && -s "$scratch/beside/$two[1]", 'the compiler finds its headers from elsewhere') or diag($output);
make($tree, @two);
for my $object (@two) {
    my $bytes = slurp_file("$tree/$object");
    ok(length $bytes && $bytes eq slurp_file("$scratch/beside/$object"), "$object is the same wherever it is built");
    is(index($bytes, $scratch), -1, 'and does not say where');
}

done_testing();
