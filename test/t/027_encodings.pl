# 027_encodings.pl - keys of a database of another encoding are dumped and restored into one of UTF-8, and open there.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('encodings');
my @to   = ('-h', $node->host, '-p', $node->port);

sub database {
    my ($name, $encoding) = @_;
    $node->safe_psql('postgres', "CREATE DATABASE $name TEMPLATE template0 ENCODING '$encoding' LOCALE 'C'");
    $node->safe_psql($name, 'CREATE EXTENSION keypool CASCADE');
    return $name;
}
sub dumped {
    my ($from, $encoding) = @_;
    my $to   = "${from}_restored";
    my $file = $node->basedir . "/$to.sql";
    system_or_bail('pg_dump', @to, '-f', $file, $from);
    $node->safe_psql('postgres', "CREATE DATABASE $to TEMPLATE template0 ENCODING '$encoding' LOCALE 'C'");
    system_or_bail('psql', '-X', '-q', '-o', '/dev/null', @to, '-v', 'ON_ERROR_STOP=1', '-d', $to, '-f', $file);
    return $to;
}

# In UTF-8 on the way out, whatever the database's encoding.
my $selected = q{SET client_encoding = 'UTF8'; SELECT key_id, key_label, key_value FROM keypool_select('münchen-azure')};
my $doctor   = q{SELECT result FROM keypool_doctor() WHERE "check" = 'secrets open'};

for my $encoding ('LATIN1', 'LATIN2', 'EUC_JP', 'WIN1252', 'UTF8') {
    my $name = database('of_' . lc $encoding, $encoding);
    my $provider = $encoding eq 'EUC_JP' ? '東京-azure' : 'münchen-azure';
    my $secret   = $encoding eq 'EUC_JP' ? 'sk-秘密' : 'sk-schlüssel-ö';
    my $select   = $selected =~ s/münchen-azure/$provider/r;
    my $id = $node->safe_psql($name, "SET client_encoding = 'UTF8'; SELECT keypool_add_key('$provider', 'a', '$secret')");
    is($node->safe_psql($name, $select), "$id|a|$secret", "$encoding: a secret opens where it was added");
    is($node->safe_psql($name, q{SELECT left(id::text, 8) = left(encode(sha256(convert_to(provider_id, 'UTF8')), 'hex'), 8) FROM keypool.provider_keys}),
        't', "$encoding: its id begins with the hash of the provider in UTF-8");
    $node->safe_psql($name, 'DELETE FROM keypool.master_keys');
    is($node->safe_psql($name, "SET client_encoding = 'UTF8'; SELECT keypool_delete_key(keypool_add_key('$provider', 'c', 'sk-c'))"),
        '', "$encoding: a master key that opens what is there may seal, also if it is not known yet");
    my $restored = dumped($name, 'UTF8');
    is($node->safe_psql($restored, $select), "$id|a|$secret", "$encoding: restored into UTF8, it opens");
    is($node->safe_psql($restored, 'SELECT * FROM keypool_heal()'), '0|0', "$encoding: and there is nothing to heal");
    is($node->safe_psql($restored, $doctor), 'ok', "$encoding: nor to complain of");
    like(failure_of($node, "SET client_encoding = 'UTF8'; SELECT keypool_add_key('$provider', 'b', '$secret')", $restored),
        qr/^ERROR:  KP409: /, "$encoding: and the same secret is known there");
}

# From UTF-8 to another encoding, which may lack a character.
my $id;
my $utf8 = database('wide', 'UTF8');
$node->safe_psql($utf8, q{SELECT keypool_add_key('münchen-azure', 'a', 'sk-ö'); SELECT keypool_add_key('wide', 'a', 'sk-秘密')});
my $narrow = dumped($utf8, 'LATIN1');
like($node->safe_psql($narrow, $selected), qr/\|a\|sk-ö$/, 'restored into LATIN1, a secret opens');
like(failure_of($node, q{SELECT * FROM keypool_select('wide')}, $narrow), qr/WARNING.*the secret is not text in the database's encoding.*ERROR:  KP404/s,
    'one with a character that LATIN1 lacks is skipped, and the reason told');

# An encoding that nothing is converted from, for what is ASCII in it.
my $mule = database('mule', 'MULE_INTERNAL');
$id = $node->safe_psql($mule, q{SELECT keypool_add_key('azure', 'a', 'sk-a')});
is($node->safe_psql($mule, q{SELECT key_id, key_value FROM keypool_select('azure')}), "$id|sk-a", 'MULE_INTERNAL: a secret in ASCII opens');
like(failure_of($node, q{SELECT keypool_add_key('azure', 'b', E'sk-\\x81\\xf6')}, $mule),
    qr/^ERROR:  22P05: key_value holds a character that has no equivalent in UTF-8/, 'and one that is not is refused');

# What a version before sealed: bound to the bytes of the database's encoding. A database without an encoding makes such values.
my $old   = database('old', 'LATIN1');
my $bytes = database('bytes', 'SQL_ASCII');
$id = '00000000-0000-8000-8000-000000000001';
$node->safe_psql($bytes, qq{INSERT INTO keypool.provider_keys (id, provider_id, key_value) VALUES ('$id', E'm\\xfcnchen-azure', E'sk-\\xf6')});
my $sealed = $node->safe_psql($bytes, 'SELECT key_value FROM keypool.provider_keys');
$node->safe_psql($old, qq{SET client_encoding = 'UTF8'; INSERT INTO keypool.provider_keys (id, provider_id, key_value) VALUES ('$id', 'münchen-azure', '$sealed')});
is($node->safe_psql($old, $selected), "$id||sk-ö", 'a secret that a version before sealed opens');
is($node->safe_psql($old, 'SELECT * FROM keypool_heal()') . ' ' . $node->safe_psql($old, 'SELECT * FROM keypool_heal()'), '1|0 0|0', 'is sealed again, once');
is($node->safe_psql(dumped($old, 'UTF8'), $selected), "$id||sk-ö", 'and opens then after a dump and restore into UTF8');

$node->stop;
done_testing();
