
# Names of agents and pauses, which the running server knows.
function __fish_varta_server_names
    set -l before (commandline -opc)
    set -e before[1]
    varta-server complete -- $before (commandline -ct) 2>/dev/null
end

complete -c varta-server -n "__fish_seen_subcommand_from pause resume forget ack unack" -f -a "(__fish_varta_server_names)"
