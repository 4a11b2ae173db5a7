#!/usr/bin/perl
# `app.pl serve`: the web application. `app.pl seed FILE`: puts the pairs of FILE into the database.
# Reads its configuration when it starts, and only then.
use strict;
use warnings;
use IO::Socket::INET;

my %config = read_pairs('srv/app/app.conf');
my $command = shift // '';
if    ($command eq 'seed')  { seed(shift) }
elsif ($command eq 'serve') { serve() }
else                        { die "usage: app.pl serve | app.pl seed FILE\n" }

sub seed {
    my %pairs = read_pairs(shift);
    database("SET $_ $pairs{$_}") for sort keys %pairs;
    print scalar(keys %pairs), " values are in the database at $config{database}\n";
}

sub serve {
    my $server = IO::Socket::INET->new(
        LocalAddr => $config{address},
        LocalPort => $config{port},
        Listen    => 64,
        ReuseAddr => 1,
    ) or die "cannot listen on $config{address}:$config{port}: $@\n";
    print "application $$ listens on $config{address}:$config{port}\n";
    $SIG{PIPE} = 'IGNORE';
    while (1) {
        my $client = $server->accept or next;
        eval {
            local $SIG{ALRM} = sub { die "too slow\n" };
            alarm 2;
            my $request = <$client> // '';
            while (my $header = <$client>) { last if $header =~ /^\r?$/ }
            respond($client, $1) if $request =~ m{^GET (/\S*)};
        };
        alarm 0;
        close $client;
    }
}

sub respond {
    my ($client, $path) = @_;
    my ($status, $body) = ('200 OK', "$config{node} is well, pid $$\n");
    if ($path ne '/health') {
        $body = eval {
            my ($visits, $motto) = (database('ADD visits 1'), database('GET motto'));
            "$config{greeting} from $config{node}, pid $$: visit $visits, the database says \"$motto\"\n";
        };
        ($status, $body) = ('503 Service Unavailable', "$config{node}: $@") unless defined $body;
    }
    printf {$client} "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
        $status, length $body, $body;
}

sub database {
    my ($request) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => $config{database}, Timeout => 1)
        or die "the database at $config{database} does not answer: $@\n";
    print {$socket} "$request\n";
    my $answer = <$socket>;
    die "the database at $config{database} hung up\n" unless defined $answer;
    $answer =~ s/\s+$//;
    return $answer;
}

sub read_pairs {
    my ($path) = @_;
    open my $file, '<', $path or die "cannot read $path: $!\n";
    return map { /^(\S+) = (.*)$/ ? ($1, $2) : () } <$file>;
}
