# The new files work: removes the previous ones. `digest`: of the program that must be running.
lock 1
pid=$(show MainPID)
if [ "${pid:-0}" = 0 ] || [ "$(sum "/proc/$pid/exe")" != "$digest" ]; then answer failed other; exit 1; fi
if [ -e "$pending" ]; then
    sed -n 's/^had //p' "$pending" | while read -r path; do rm -f "$path.old"; done
    rm -f "$pending"
fi
answer end
