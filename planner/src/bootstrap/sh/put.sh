# Replaces files: each is written beside its place, checked and synced; when all are, they are renamed. Until then the present files are
# not touched, and if the script ends early, it removes the new ones. `keep_old`: whether the `.old` files of an earlier run stay, because
# the present files never worked; `state`, `aside`: another site's state directory and where it is moved, or empty.
umask 077
new=
made=
drop() {
    for path in $new; do rm -f "$path.new"; done
    rm -f "$pending.new"
    [ -z "$made" ] || rmdir $made 2> /dev/null
}
fail() {
    trap '' PIPE
    drop
    trap - EXIT
    answer failed "$*"
    exit 1
}
trap drop EXIT
trap 'exit 1' HUP INT TERM PIPE
lock 1

# put PATH MODE BYTES SHA256, with its content on standard input
put() {
    dir=$(dirname "$1")
    if [ ! -d "$dir" ]; then
        mkdir -m 755 "$dir" 2> /dev/null || fail write "$dir" "cannot be made"
        made="$made $dir"
    fi
    new="$new $1"
    rm -f "$1.new"
    printed=$(dd bs="$3" count=1 iflag=fullblock conv=fsync of="$1.new" 2>&1 > /dev/null) || fail write "$1" "$(line "$printed")"
    [ "$(sum "$1.new")" = "$4" ] || fail cut "$1"
    chown 0:0 "$1.new" && chmod "$2" "$1.new" || fail write "$1" "its owner and mode cannot be set"
}

# Records for `undo` what a path has, and keeps it as `.old`.
note() {
    if [ -e "$1" ]; then
        rm -f "$1.old"
        ln "$1" "$1.old" 2> /dev/null || cp -p "$1" "$1.old" || return 1
        echo "had $1"
    else
        echo "none $1"
    fi
}

commit() {
    case " $new " in
    *" $program "*)
        printed=$("$program.new" --version 2>&1 < /dev/null) || fail run "$(line "$printed")"
        answer version "$printed"
        ;;
    esac
    # From here on the script must run to its end, even if the connection is lost: half of the files replaced is no state to leave.
    trap '' HUP INT TERM PIPE
    if [ "$keep_old" = yes ] && [ -e "$pending" ]; then
        cp "$pending" "$pending.new" || fail write "$pending" "cannot be made"
    else
        printf 'active %s\nenabled %s\n' "$(show ActiveState)" "$(show UnitFileState)" > "$pending.new" || fail write "$pending" "cannot be made"
    fi
    for path in $new; do
        grep -q " $path\$" "$pending.new" || note "$path" >> "$pending.new" || fail write "$path.old" "cannot be made"
    done
    [ -z "$aside" ] || echo "moved $state $aside" >> "$pending.new" || fail write "$pending" "cannot be made"
    sync
    mv -f "$pending.new" "$pending" || fail write "$pending" "cannot be made"
    if [ -n "$aside" ] && [ -d "$state" ]; then
        systemctl stop "$unit" 2> /dev/null
        mv "$state" "$aside" || undo_and fail write "$aside" "cannot be made"
    fi
    for path in $new; do
        mv -f "$path.new" "$path" || undo_and fail write "$path" "cannot be replaced"
    done
    ! command -v restorecon > /dev/null || restorecon -F $new 2> /dev/null
    new=
    made=
    sync
    key=$("$program" --config "$config" --print-key 2>&1 < /dev/null) || undo_and fail key "$(line "$key")"
    answer key "$key"
    answer end
}

undo_and() {
    undo
    "$@"
}
