# FirstVersion - a database whose extension is 0.1.0, with keys and their counters as the library of 0.1.0 left them.
#
# The library of today does not serve such a database: it writes none of what is made here. So the counters are put into the table
# byte by byte.
package FirstVersion;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT = qw(make_first_version);

my $state_size = 3896;
my $ring       = 64;
my $minutes    = 60;

# The bytes of a keypool.state. Numbers are those of its text form; second => [[second, requests, tokens], ...],
# minute => [[minute, requests, tokens, rate_limited], ...], reserved => [[second, granted, open, tokens], ...].
sub state_bytes {
    my (%state) = @_;
    my $bytes = "\0" x $state_size;
    my $put = sub { my ($format, $at, $value) = @_; my $packed = pack $format, $value; substr $bytes, $at, length $packed, $packed; };
    $put->('L', 0, 1);
    my $at = 8;
    for my $name (qw(total_requests total_tokens last_used_at last_429_at cooldown_until)) {
        $put->('q', $at, $state{$name} // 0);
        $at += 8;
    }
    my ($newest) = sort { $b <=> $a } map { $_->[0] } @{ $state{second} // [] };
    $put->('L', 48, $newest // 0);
    for (@{ $state{second} // [] }) {
        my ($second, $requests, $tokens) = @$_;
        my $i = $second % $ring;
        $put->('L', 56 + 4 * $i, $second);
        $put->('L', 312 + 4 * $i, $requests);
        $put->('q', 568 + 8 * $i, $tokens);
    }
    for (@{ $state{minute} // [] }) {
        my ($minute, $requests, $tokens, $rate_limited) = @$_;
        my $i = $minute % $minutes;
        $put->('L', 1080 + 4 * $i, $minute);
        $put->('L', 1320 + 4 * $i, $requests);
        $put->('L', 1560 + 4 * $i, $rate_limited);
        $put->('q', 1800 + 8 * $i, $tokens);
    }
    $put->('q', 2280, $state{last_used_at} // 0);
    for (@{ $state{reserved} // [] }) {
        my ($second, $granted, $open, $tokens) = @$_;
        my $i = $second % $ring;
        $put->('L', 2288, $second);
        $put->('L', 2296 + 4 * $i, $second);
        $put->('C', 2552 + $i, $granted);
        $put->('L', 2616 + 4 * $i, $open);
        $put->('Q', 2872 + 8 * $i, (1 << $open) - 1);
        $put->('q', 3384 + 8 * $i, $tokens);
    }
    return $bytes;
}

# Makes a database on a node with the extension of a released version, and keys in it: each {id, provider, label, secret, max_rpm,
# state}. What triggers of 0.1.0 do, the secrets' seals, another database does, of which nothing is left.
sub make_first_version {
    my ($node, $database, $version, @keys) = @_;
    my $sealed = seal($node, @keys);
    $node->safe_psql('postgres', "CREATE DATABASE $database");
    $node->safe_psql($database, "CREATE EXTENSION keypool VERSION '$version' CASCADE");
    my @rows = map { sprintf "('%s', '%s', '%s', '%s', %s)", @$_{qw(id provider label)}, $sealed->{ $_->{id} }, $_->{max_rpm} // 'NULL' } @keys;
    my @words = map { "w$_" } 1 .. $state_size / 8;
    my @states = map { "('$_->{id}', " . join(', ', unpack 'q*', state_bytes(%{ $_->{state} // {} })) . ')' } @keys;
    # A row of numbers has the bytes of a row with a state: the tables exchange their files.
    $node->safe_psql($database, join "\n",
        'BEGIN;',
        'ALTER TABLE keypool.provider_keys DISABLE TRIGGER USER;',
        'INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value, max_rpm) VALUES ' . join(', ', @rows) . ';',
        (map { "ALTER TABLE keypool.provider_keys ENABLE ALWAYS TRIGGER $_;" } qw(before_key_change after_key_change after_key_truncate)),
        'CREATE TABLE numbers (key_id uuid, ' . join(', ', map { "$_ bigint" } @words) . ');',
        'INSERT INTO numbers VALUES ' . join(', ', @states) . ';',
        'SET LOCAL allow_system_table_mods = on;',
        q{UPDATE pg_class a SET relfilenode = b.relfilenode FROM pg_class b
          WHERE a.oid IN ('numbers'::regclass, 'keypool.key_state'::regclass) AND b.oid IN ('numbers'::regclass, 'keypool.key_state'::regclass) AND a.oid <> b.oid;},
        'COMMIT;',
        'DROP TABLE numbers;',
        'REINDEX TABLE keypool.key_state;');
    return;
}

# The secrets of keys, sealed, by id.
sub seal {
    my ($node, @keys) = @_;
    $node->safe_psql('postgres', 'CREATE DATABASE sealing');
    $node->safe_psql('sealing', 'CREATE EXTENSION keypool CASCADE; INSERT INTO keypool.provider_keys (id, provider_id, key_label, key_value) VALUES '
          . join(', ', map { sprintf "('%s', '%s', '%s', '%s')", @$_{qw(id provider label secret)} } @keys));
    my %sealed = map { split /\|/ } split /\n/, $node->safe_psql('sealing', 'SELECT id, key_value FROM keypool.provider_keys');
    $node->safe_psql('postgres', 'DROP DATABASE sealing');
    return \%sealed;
}

1;
