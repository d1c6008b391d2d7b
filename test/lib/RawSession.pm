# RawSession - a client that sends one message of the frontend/backend protocol at a time.
package RawSession;

use strict;
use warnings FATAL => 'all';

use IO::Socket::UNIX;

# A session as the superuser who runs the tests, on a node's socket.
sub new {
    my ($class, $node, $user) = @_;
    my $socket = IO::Socket::UNIX->new(Peer => $node->host . '/.s.PGSQL.' . $node->port) or die "socket: $!";
    my $self = bless { socket => $socket }, $class;
    my $startup = pack('N', 196608) . "user\0$user\0database\0postgres\0\0";
    $socket->syswrite(pack('N', 4 + length $startup) . $startup);
    $self->until('Z');
    return $self;
}

sub send_message {
    my ($self, $type, $payload) = @_;
    $self->{socket}->syswrite($type . pack('N', 4 + length $payload) . $payload);
    return;
}

sub read_exactly {
    my ($self, $size) = @_;
    my $bytes = '';
    while (length $bytes < $size) { $self->{socket}->sysread($bytes, $size - length $bytes, length $bytes) or die 'the server has gone'; }
    return $bytes;
}

# Reads messages until one of a type in the list or an error comes, and returns its type.
sub until {
    my ($self, $types) = @_;
    while (1) {
        my ($type, $size) = unpack 'aN', $self->read_exactly(5);
        $self->{last} = $self->read_exactly($size - 4);
        return $type if $type eq 'E' || index($types, $type) >= 0;
    }
}

sub query { my ($self, $sql) = @_; $self->send_message('Q', "$sql\0"); return $self->sync_answer; }

# The messages of the extended protocol, each answered before the next: nothing is sent ahead.
sub parse {
    my ($self, $name, $sql) = @_;
    $self->send_message('P', "$name\0$sql\0" . pack('n', 0));
    $self->send_message('H', '');
    return $self->until('1');
}

sub bind {
    my ($self, $portal, $name, @values) = @_;
    $self->send_message('B', "$portal\0$name\0" . pack('nn', 0, scalar @values) . join('', map { pack('N', length $_) . $_ } @values) . pack('n', 0));
    $self->send_message('H', '');
    return $self->until('2');
}

sub execute {
    my ($self, $portal, $rows) = @_;
    $self->send_message('E', "$portal\0" . pack('N', $rows // 0));
    $self->send_message('H', '');
    return $self->until('Cs');
}

sub sync { my ($self) = @_; $self->send_message('S', ''); return $self->sync_answer; }

sub sync_answer {
    my ($self) = @_;
    while ($self->until('Z') ne 'Z') { }
    return;
}

1;
