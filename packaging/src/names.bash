
# Names of agents and pauses, which the running server knows. The function above completes all else.
_varta__server_with_names() {
    local line=${COMP_LINE:0:COMP_POINT} name typed cut
    local -a words names
    read -ra words <<<"$line"
    [[ $line == *[![:space:]] ]] || words+=("")
    mapfile -t names < <(varta-server complete -- "${words[@]:1}" 2>/dev/null)
    if ((${#names[@]} == 0)); then
        _varta__server "$@"
        return
    fi
    # Readline cuts words at these characters, and replaces only what is behind the last one.
    typed=${words[-1]}
    cut=${typed%"${typed##*[=:@]}"}
    COMPREPLY=()
    for name in "${names[@]}"; do
        # A name comes from an agent, and is one word of the command line whatever is in it.
        printf -v name %q "$name"
        COMPREPLY+=("${name#"$cut"}")
    done
}

complete -F _varta__server_with_names -o nosort -o bashdefault -o default varta-server 2>/dev/null ||
    complete -F _varta__server_with_names -o bashdefault -o default varta-server
