# Says what the journal has, and puts back what was there before.
lock
journal
trap '' HUP INT TERM PIPE
undo
say end
