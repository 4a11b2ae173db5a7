# Says what the journal has, and puts back what was there before.
journal
# What is to be undone may still be waiting for the unit.
lock 100
trap '' HUP INT TERM PIPE
undo
say end
