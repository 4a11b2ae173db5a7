# What all scripts have in common. Values come before it, as assignments. Lines that begin with `groundplan: ` are the answer.
set -u
LC_ALL=C PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
unit=groundplan-agent.service
program=/usr/bin/groundplan-agent
config=/etc/groundplan/agent.toml
# What a run replaced and has not seen work yet, a line each; those files lie beside the new ones as `.old`.
pending=/etc/groundplan/.bootstrap

say() { printf 'groundplan: %s\n' "$*"; }
line() { printf '%s' "$*" | tr '\n' ' '; }
sum() { sha256sum < "$1" | cut -d ' ' -f 1; }
show() { systemctl show --property "$1" --value "$unit" 2> /dev/null; }

journal() {
    journalctl --no-pager --quiet --lines 12 --output cat --unit "$unit" 2> /dev/null | sed 's/^/groundplan: journal /'
}

# One run at a time; the lock goes with the script. `lock SECONDS`: how long to wait for another's end.
lock() {
    if command -v flock > /dev/null && [ -w /run ]; then
        exec 9> /run/groundplan-bootstrap.lock
        flock -w "$1" 9 || { say failed busy; exit 1; }
    fi
}

# Puts back what was there before.
undo() {
    [ -e "$pending" ] || return 0
    systemctl stop "$unit" 2> /dev/null
    while read -r what path to; do
        case $what in
        had) [ ! -e "$path.old" ] || mv -f "$path.old" "$path" ;;
        none) rm -f "$path" ;;
        moved) [ ! -d "$to" ] || { rm -rf "$path"; mv "$to" "$path"; } ;;
        esac
    done < "$pending"
    enabled=$(sed -n 's/^enabled //p' "$pending")
    active=$(sed -n 's/^active //p' "$pending")
    [ "$enabled" = enabled ] || systemctl disable --quiet "$unit" 2> /dev/null || rm -f "/etc/systemd/system/multi-user.target.wants/$unit"
    systemctl daemon-reload
    systemctl reset-failed "$unit" 2> /dev/null
    rm -f "$pending"
    rmdir /etc/groundplan 2> /dev/null
    sync
    case $active in
    active | activating | reloading) systemctl start "$unit" && say undone running || say undone broken ;;
    *) say undone stopped ;;
    esac
}
