# 007_openpgp.pl - secrets come as OpenPGP messages, made with the real gpg; whatever does not open is refused and stores nothing.

use strict;
use warnings FATAL => 'all';

use KeypoolCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $folder = PostgreSQL::Test::Utils::tempdir_short();

# Runs gpg with a home of its own; returns what it prints.
sub gpg {
    my ($home, $input, @arguments) = @_;
    mkdir "$folder/$home", 0700 unless -d "$folder/$home";
    my ($output, $errors) = ('', '');
    IPC::Run::run([ 'gpg', '--homedir', "$folder/$home", '--batch', '--quiet', '--pinentry-mode', 'loopback',
            '--passphrase', '', '--trust-model', 'always', @arguments ], '<', \$input, '>', \$output, '2>', \$errors)
      or die "gpg @arguments: $errors";
    return $output;
}

# A key pair as docs/security.md makes it: RSA, with a subkey that encrypts.
sub make_key {
    my ($home, $name) = @_;
    gpg($home, '', '--quick-generate-key', $name, 'rsa2048', 'sign', 'never');
    my ($fingerprint) = gpg($home, '', '--list-keys', '--with-colons', $name) =~ /^fpr:+([0-9A-F]+):/m;
    gpg($home, '', '--quick-add-key', $fingerprint, 'rsa2048', 'encr', 'never');
    return;
}

sub write_private {
    my ($path, $content) = @_;
    open my $file, '>', $path or die "$path: $!";
    chmod 0600, $path;
    print $file $content;
    close $file or die "$path: $!";
    return;
}

make_key('server', 'keypool');
my $secret_key = gpg('server', '', '--armor', '--export-secret-keys');
my $public_key = gpg('server', '', '--armor', '--export');
my $key_file   = "$folder/server.asc";
write_private($key_file, $secret_key . $public_key);

my $node = new_cluster('openpgp', conf => "keypool.pgp_secret_key_file = '$key_file'\n");

# What a client does: takes the public key from the server, and encrypts to it.
my $published = $node->safe_psql('postgres', 'SELECT keypool_public_key()');
like($published, qr/^-----BEGIN PGP PUBLIC KEY BLOCK-----.*-----END PGP PUBLIC KEY BLOCK-----$/s, 'the public key is published');
unlike($published, qr/PRIVATE/, 'and the secret one is not');
gpg('client', "$published\n", '--import');
make_key('client', 'somebody else');

sub encrypted { my ($secret, @options) = @_; return gpg('client', $secret, '--armor', '--encrypt', '-r', 'keypool', @options); }

sub count_keys { return $node->safe_psql('postgres', 'SELECT count(*) FROM keypool_list_keys()'); }

$node->safe_psql('postgres', sprintf("SELECT keypool_add_key('added', 'a', '%s')", encrypted("sk-marker-added\n")));
is($node->safe_psql('postgres', "SELECT key_value FROM keypool_select('added')"),
    'sk-marker-added', 'keypool_add_key takes a message, without the line end of `echo`');

$node->safe_psql('postgres', sprintf("INSERT INTO keypool.provider_keys (provider_id, key_value) VALUES ('inserted', '%s')",
        encrypted('sk-marker-inserted', '--compress-algo', 'none')));
is($node->safe_psql('postgres', "SELECT key_value FROM keypool_select('inserted')"),
    'sk-marker-inserted', 'a plain INSERT takes a message');
is($node->safe_psql('postgres', "SELECT bool_and(key_value LIKE 'enc:v1:primary:%') FROM keypool.provider_keys"),
    't', 'what is stored is sealed under the master key');

# A document of keypool_apply brings secrets as messages only.
sub applied {
    my ($secret) = @_;
    my $document = qq{jsonb_build_object('providers', jsonb_build_object('applied', jsonb_build_object('keys', jsonb_build_array(jsonb_build_object('key_label', 'a', 'secret', '$secret')))))};
    return $node->safe_psql('postgres', "SELECT change FROM keypool_apply($document)");
}
is(applied(encrypted('sk-marker-applied')), 'added', 'keypool_apply takes a message');
is($node->safe_psql('postgres', "SELECT key_value FROM keypool_select('applied')"), 'sk-marker-applied', 'which is the secret of the key');
is(applied(encrypted('sk-marker-applied')), '', 'another message with the same secret changes nothing');
is(applied(encrypted('sk-marker-other')), 'secret changed', 'one with another secret does');
is($node->safe_psql('postgres', "SELECT key_value FROM keypool_select('applied')"), 'sk-marker-other', 'and is handed out');
$node->safe_psql('postgres', "DELETE FROM keypool.provider_keys WHERE provider_id = 'applied'");

my $message = encrypted('sk-marker-refused');
my $other   = gpg('client', 'sk-marker-refused', '--armor', '--encrypt', '-r', 'somebody else');
my $symmetric = do {
    my ($output, $errors) = ('', '');
    IPC::Run::run([ 'gpg', '--homedir', "$folder/client", '--batch', '--quiet', '--pinentry-mode', 'loopback', '--passphrase', 'x',
            '--armor', '--symmetric' ], '<', \'sk-marker-refused', '>', \$output, '2>', \$errors) or die $errors;
    $output;
};
my $altered = $message;
my $middle  = int(length($altered) / 2);
substr($altered, $middle, 1) = substr($altered, $middle, 1) eq 'A' ? 'B' : 'A';
my $unprotected = $node->safe_psql('postgres', q{
    SELECT armor(pgp_pub_encrypt('sk-marker-refused', dearmor(keypool_public_key()), 'disable-mdc=1'))});
my %bad = (
    'without an integrity check' => $unprotected,
    'for another recipient'  => $other,
    'with a passphrase only' => $symmetric,
    'that was altered'       => $altered,
    'that was cut off'       => substr($message, 0, length($message) / 2),
    'without a body'         => "-----BEGIN PGP MESSAGE-----\n\n-----END PGP MESSAGE-----\n",
);
my $before = count_keys();
for my $kind (sort keys %bad) {
    my $failure = failure_of($node, "SELECT keypool_add_key('bad', 'b', '$bad{$kind}')");
    like($failure, qr/^ERROR:  22023: key_value is an OpenPGP message that this server cannot open/, "a message $kind is refused");
    unlike($failure, qr/marker|BEGIN PGP/, 'and the error repeats nothing of it');
}
like(failure_of($node, sprintf("SELECT keypool_add_key('bad', 'b', '%s')", encrypted('a' x 20_000_000))),
    qr/^ERROR:  22023: key_value/, 'a message that unpacks to 20 MB is refused');
like(failure_of($node, sprintf("SELECT keypool_add_key('bad', 'b', '-----BEGIN PGP MESSAGE-----%s')", 'A' x 40000)),
    qr/^ERROR:  22023: key_value must not be an OpenPGP message of more than/, 'a message that is too long is refused');
like(failure_of($node, sprintf("SELECT keypool_add_key('bad', 'b', '%s')", encrypted("\xff\xfe"))),
    qr/^ERROR:  22023: key_value is an OpenPGP message that does not hold text/, 'a message that is no text is refused');
like(failure_of($node, sprintf("SELECT keypool_add_key('bad', 'b', '%s')", encrypted("\n"))),
    qr/^ERROR:  22023: key_value must not be empty/, 'an empty message is refused');
like(failure_of($node, sprintf("SELECT keypool_add_key('bad', 'b', '%s')", encrypted("Bearer sk-marker-bearer"))),
    qr/^ERROR:  22023: key_value must be the secret alone/, 'what a message holds is looked at as what is typed');
like(failure_of($node, sprintf("SELECT keypool_add_key('bad', 'b', '%s')", encrypted("\xef\xbb\xbfsk-marker-mark"))),
    qr/^ERROR:  22023: key_value must not contain invisible characters/, 'also a byte order mark');
like(failure_of($node, sprintf("SELECT keypool_add_key('added', 'b', '%s')", encrypted('sk-marker-added '))),
    qr/^NOTICE:.*^ERROR:  KP409: /ms, 'and the same secret is known again, without the blank at its end');
is(count_keys(), $before, 'no refused message left a key');

# The server's own key file.
chmod 0640, $key_file;
like(failure_of($node, "SELECT keypool_add_key('bad', 'b', '$message')"),
    qr/^ERROR:  KP401: the OpenPGP key file has group or world access/, 'a key file that others may read is refused');
write_private($key_file, $public_key);
chmod 0600, $key_file;
like(failure_of($node, "SELECT keypool_add_key('bad', 'b', '$message')"),
    qr/^ERROR:  KP401: the OpenPGP key file holds no armored secret key/, 'a key file without the secret key is told');
write_private($key_file, $secret_key);
like(failure_of($node, 'SELECT keypool_public_key()'),
    qr/^ERROR:  KP401: the OpenPGP key file holds no armored public key/, 'a key file without the public key is told');
unlink $key_file;
like(failure_of($node, 'SELECT keypool_public_key()'), qr/^ERROR:  KP401: the OpenPGP key file cannot be read/,
    'a key file that is not there is told');
$node->append_conf('postgresql.conf', "keypool.pgp_secret_key_file = ''\n");
$node->reload;
like(failure_of($node, 'SELECT keypool_public_key()'), qr/^ERROR:  KP401: there is no OpenPGP key/, 'no key file is told');

$node->stop;
is_deeply([ files_with('sk-marker', $node->data_dir) ], [], 'no plaintext is in any file of the server');
unlike(slurp_file($node->logfile), qr/sk-marker/, 'nor in its log');
system('gpgconf', '--homedir', "$folder/$_", '--kill', 'all') for qw(server client);
done_testing();
