# Looks, and changes nothing. `paths`: files of ours beside the unit; `dirs`: where something will be written.
say machine "$(uname -m)"
say uid "$(id -u)"
[ ! -d /run/systemd/system ] || ! command -v systemctl > /dev/null || say systemd yes
unit_dir=/usr/lib/systemd/system
[ ! -d /lib/systemd/system ] || unit_dir=/lib/systemd/system
say unit_dir "$unit_dir"
for path in $paths "$unit_dir/$unit"; do
    [ ! -f "$path" ] || say file "$path" "$(stat -L -c %a "$path")" "$(sum "$path")"
done
for dir in $dirs "$unit_dir"; do
    at=$dir
    while [ ! -d "$at" ]; do at=$(dirname "$at"); done
    device=$(stat -c %d "$at")
    set -- $(df -P -k "$at" | tail -n 1)
    say space "$dir" "$device" "${4:-}"
done
[ ! -e "$pending" ] || say pending yes
say active "$(show ActiveState)"
say enabled "$(show UnitFileState)"
pid=$(show MainPID)
[ "${pid:-0}" = 0 ] || say running "$(sum "/proc/$pid/exe")"
if [ -f "$config" ]; then
    say config "$(base64 < "$config" | tr -d '\n')"
    # The agent makes a key where there is none: it is asked only where there is one.
    at_top() { sed -n "/^[[:space:]]*\\[/q; s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*[\"']\\([^\"']*\\)[\"'].*/\\1/p" "$config"; }
    state=$(at_top state_dir)
    key=$(at_top key)
    state=${state:-/var/lib/groundplan}
    key=${key:-$state/node.key}
else
    key=/var/lib/groundplan/node.key
fi
if [ -x "$program" ]; then
    say version "$(timeout 10 "$program" --version < /dev/null 2> /dev/null)"
    if [ -f "$key" ] && [ -f "$config" ]; then
        say key "$(timeout 10 "$program" --config "$config" --print-key < /dev/null 2> /dev/null)"
    fi
fi
[ ! -f "$key" ] || say key_file yes
say end
