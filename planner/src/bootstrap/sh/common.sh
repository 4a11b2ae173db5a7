# The common part of all scripts. The values of a script come before it, as assignments. Lines that begin with `groundplan: ` are its answer.
set -u
LC_ALL=C PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
unit=groundplan-agent.service
program=/usr/bin/groundplan-agent
config=/etc/groundplan/agent.toml
# Lists what a run has replaced without having seen the new agent work; the previous files are kept beside the new ones as `.old`.
pending=/etc/groundplan/.bootstrap

answer() { printf 'groundplan: %s\n' "$*"; }
line() { printf '%s' "$*" | tr '\n' ' '; }
sum() { sha256sum < "$1" | cut -d ' ' -f 1; }
show() { systemctl show --property "$1" --value "$unit" 2> /dev/null; }

journal() {
    journalctl --no-pager --quiet --lines 12 --output cat --unit "$unit" 2> /dev/null | sed 's/^/groundplan: journal /'
}

# One run at a time; the lock is released when the script ends. `lock SECONDS`: how long to wait for another run.
lock() {
    if command -v flock > /dev/null && [ -w /run ]; then
        exec 9> /run/groundplan-bootstrap.lock
        flock -w "$1" 9 || { answer failed busy; exit 1; }
    fi
}

# Restores the previous files, and the previous state of the unit.
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
    active | activating | reloading) systemctl start "$unit" && answer undone running || answer undone broken ;;
    *) answer undone stopped ;;
    esac
}
