#!/usr/bin/perl
# A key-value store. One request a line: `GET key`, `SET key value`, `ADD key number`; one line in answer.
# Every change is on disk before it is answered, so that a restart loses nothing.
use strict;
use warnings;
use IO::Socket::INET;

my %config = read_pairs('srv/database/database.conf');
my %values = -e $config{data} ? read_pairs($config{data}) : ();

my $server = IO::Socket::INET->new(
    LocalAddr => $config{address},
    LocalPort => $config{port},
    Listen    => 64,
    ReuseAddr => 1,
) or die "cannot listen on $config{address}:$config{port}: $@\n";
print "database $$ listens on $config{address}:$config{port}\n";

$SIG{PIPE} = 'IGNORE';
while (1) {
    my $client = $server->accept or next;
    eval {
        local $SIG{ALRM} = sub { die "too slow\n" };
        alarm 2;
        while (my $line = <$client>) {
            print {$client} answer($line), "\n";
        }
    };
    alarm 0;
    close $client;
}

sub answer {
    my ($line) = @_;
    if ($line =~ /^GET (\S+)\s*$/) { return $values{$1} // '' }
    if ($line =~ /^SET (\S+) (.*?)\s*$/) { return store($1, $2) }
    if ($line =~ /^ADD (\S+) (\d+)\s*$/) { return store($1, ($values{$1} || 0) + $2) }
    return 'what?';
}

sub store {
    my ($key, $value) = @_;
    $values{$key} = $value;
    open my $file, '>', "$config{data}.new" or die "cannot write $config{data}.new: $!\n";
    print {$file} "$_ = $values{$_}\n" for sort keys %values;
    close $file or die "cannot write $config{data}.new: $!\n";
    rename "$config{data}.new", $config{data} or die "cannot replace $config{data}: $!\n";
    return $value;
}

sub read_pairs {
    my ($path) = @_;
    open my $file, '<', $path or die "cannot read $path: $!\n";
    return map { /^(\S+) = (.*)$/ ? ($1, $2) : () } <$file>;
}
