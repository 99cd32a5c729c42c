# Names of agents and pauses, which the running server knows. The function above completes all else.
functions[_varta-server_without_names]=$functions[_varta-server]
_varta-server() {
    local -a names
    names=("${(@f)$(varta-server complete -- "${(@)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    if [[ -n $names ]]; then
        compadd -a names
    else
        _varta-server_without_names "$@"
    fi
}

