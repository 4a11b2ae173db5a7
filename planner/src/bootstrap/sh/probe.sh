# The host probe; changes nothing. `paths`: the files that bootstrap manages, besides the unit; `dirs`: directories that will be written to.
answer machine "$(uname -m)"
answer uid "$(id -u)"
[ ! -d /run/systemd/system ] || ! command -v systemctl > /dev/null || answer systemd yes
unit_dir=/usr/lib/systemd/system
[ ! -d /lib/systemd/system ] || unit_dir=/lib/systemd/system
answer unit_dir "$unit_dir"
for path in $paths "$unit_dir/$unit"; do
    [ ! -f "$path" ] || answer file "$path" "$(stat -L -c %a "$path")" "$(sum "$path")"
done
for dir in $dirs "$unit_dir"; do
    at=$dir
    while [ ! -d "$at" ]; do at=$(dirname "$at"); done
    device=$(stat -c %d "$at")
    set -- $(df -P -k "$at" | tail -n 1)
    answer space "$dir" "$device" "${4:-}"
done
[ ! -e "$pending" ] || answer pending yes
answer active "$(show ActiveState)"
answer enabled "$(show UnitFileState)"
pid=$(show MainPID)
[ "${pid:-0}" = 0 ] || answer running "$(sum "/proc/$pid/exe")"
if [ -f "$config" ]; then
    answer config "$(base64 < "$config" | tr -d '\n')"
    # `--print-key` would create a missing key, so it is run only below, where a key file exists.
    at_top() { sed -n "/^[[:space:]]*\\[/q; s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*[\"']\\([^\"']*\\)[\"'].*/\\1/p" "$config"; }
    state=$(at_top state_dir)
    key=$(at_top key)
    state=${state:-/var/lib/groundplan}
    key=${key:-$state/node.key}
else
    key=/var/lib/groundplan/node.key
fi
if [ -x "$program" ]; then
    answer version "$(timeout 10 "$program" --version < /dev/null 2> /dev/null)"
    if [ -f "$key" ] && [ -f "$config" ]; then
        answer key "$(timeout 10 "$program" --config "$config" --print-key < /dev/null 2> /dev/null)"
    fi
fi
[ ! -f "$key" ] || answer key_file yes
answer end
