#!/usr/bin/perl
# A front end: forwards each request to the next of its backends, and skips those that do not answer.
# HUP makes it read its configuration again, and listen on another address if that has changed.
use strict;
use warnings;
use IO::Socket::INET;

my (%config, @backends, $server);
my $reload = 1;
my $next = 0;
$SIG{HUP}  = sub { $reload = 1 };
$SIG{PIPE} = 'IGNORE';

while (1) {
    configure() if $reload;
    my $client = $server->accept or next;
    eval {
        local $SIG{ALRM} = sub { die "too slow\n" };
        alarm 3;
        my $request = <$client> // '';
        while (my $header = <$client>) { last if $header =~ /^\r?$/ }
        print {$client} answer($1) if $request =~ m{^GET (/\S*)};
    };
    alarm 0;
    close $client;
}

sub configure {
    $reload = 0;
    open my $file, '<', 'srv/front/front.conf' or die "cannot read srv/front/front.conf: $!\n";
    my %new = map { /^(\S+) = (.*)$/ ? ($1, $2) : () } <$file>;
    my $moved = !$server || "$new{address}:$new{port}" ne "$config{address}:$config{port}";
    %config = %new;
    @backends = split ' ', $config{backends};
    if ($moved) {
        $server = IO::Socket::INET->new(
            LocalAddr => $config{address},
            LocalPort => $config{port},
            Listen    => 64,
            ReuseAddr => 1,
            Timeout   => 1,    # of accept: a signal that comes just before it is seen within a second
        ) or die "cannot listen on $config{address}:$config{port}: $@\n";
    }
    print "front end $$ listens on $config{address}:$config{port} and asks @backends\n";
}

sub answer {
    my ($path) = @_;
    return response('200 OK', "the front end is well, pid $$\n") if $path eq '/health';
    for (@backends) {
        my $backend = $backends[$next++ % @backends];
        my $socket = IO::Socket::INET->new(PeerAddr => $backend, Timeout => 1) or next;
        print {$socket} "GET $path HTTP/1.1\r\nHost: $backend\r\nConnection: close\r\n\r\n";
        my $answer = do { local $/; <$socket> };
        return $answer if defined $answer && $answer =~ m{^HTTP/1\.1 200 };
    }
    return response('502 Bad Gateway', "no backend answers: @backends\n");
}

sub response {
    my ($status, $body) = @_;
    return sprintf "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
        $status, length $body, $body;
}
