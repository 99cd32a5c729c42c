#!/bin/sh
# The life of the package where systemd is process 1: what boot.sh runs in the tree that it has booted. Each line on standard
# output is one thing that was tried, and what came of it.
set -eu
cd /

show() { systemctl show --value --property "$1" varta.service; }
state() { echo "$(show ActiveState)/$(show SubState)/$(show Result) restarts=$(show NRestarts)"; }

# Waits until a command succeeds.
await() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || {
            echo "never came: $*" >&2
            exit 1
        }
        sleep 0.1
    done
}

failed() {
    result=$?
    [ "$result" = 0 ] || {
        systemctl status --no-pager --lines=50 varta.service
        journalctl --no-pager --lines=100
    } >&2 || true
    exit "$result"
}
trap failed EXIT

# Files and directories with the name of the package, wherever one puts something.
named() { find /etc /run /usr /var -path /run/trial -prune -o -iname '*varta*' -print 2>/dev/null | sort; }
is_running() { [ "$(show ActiveState)/$(show SubState)" = active/running ]; }
is_followed() { [ "$(show MainPID)" != "$1" ] && ! [ -d "/proc/$1" ]; }
is_restarted() { [ "$(show NRestarts)" = 1 ] && is_running; }
is_told_killed() { varta-server status | grep --quiet 'down since .* sleeper.* its process was killed by SIGKILL'; }
says() { [ "$(show StatusText)" = "$1" ]; }

before=$(named)

dpkg --install /run/trial/first.deb >&2
await is_running
echo "installed: $(state) as $(stat --format %U "/proc/$(show MainPID)"), $(systemctl is-enabled varta.service)"

# An agent of another user, which the server sees from inside its sandbox.
varta-server exec --name sleeper --beat alive --every 200ms -- sleep 600 >&2 &
agent=$!
await says "1 agent: 1 up"
echo "agent: $(show StatusText)"

main=$(show MainPID)
echo 'stall-after = "7s"' >>/etc/varta/varta.toml
systemctl reload varta.service
echo "reloaded: $(state) same=$([ "$main" = "$(show MainPID)" ] && echo yes)"
echo 'stall-afetr = "8s"' >>/etc/varta/varta.toml
result=0
systemctl reload varta.service 2>/dev/null || result=$?
echo "reloaded with a fault: $result, $(state) same=$([ "$main" = "$(show MainPID)" ] && echo yes)"
sed -i '$d' /etc/varta/varta.toml

varta-server upgrade >&2
await is_followed "$main"
await is_running
await says "1 agent: 1 up"
systemctl reload varta.service
echo "handed over: $(state)"

main=$(show MainPID)
dpkg --install /run/trial/second.deb >&2
await is_followed "$main"
await is_running
await says "1 agent: 1 up"
echo "upgraded: $(state)"

# The watchdog of the unit, with less patience.
mkdir -p /run/systemd/system/varta.service.d
printf '[Service]\nWatchdogSec=3s\n' >/run/systemd/system/varta.service.d/patience.conf
systemctl daemon-reload
systemctl restart varta.service
main=$(show MainPID)
kill -STOP "$main"
await is_restarted
await says "1 agent: 1 up"
is_followed "$main"
echo "hung: $(state)"

kill -KILL "$agent"
await is_told_killed
echo "agent: $(show StatusText)"

systemctl stop varta.service
echo "stopped: $(state)"
systemctl start varta.service
echo "started: $(state)"

if [ "$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')" -ge 253 ]; then
    cp /usr/share/doc/varta-server/examples/notify-reload.conf /run/systemd/system/varta.service.d
    systemctl daemon-reload
    systemctl restart varta.service
    main=$(show MainPID)
    systemctl reload varta.service
    [ "$(show MainPID)/$(show Type)/$(show ActiveState)" = "$main/notify-reload/active" ]
fi

rm -r /run/systemd/system/varta.service.d
systemctl daemon-reload
main=$(show MainPID)
dpkg --purge varta-server >&2
echo "purged: $(show LoadState) $([ -d "/proc/$main" ] && echo "still runs")"
named >/tmp/after
echo "$before" | sed '/^$/d' >/tmp/before
echo "left: $(comm -13 /tmp/before /tmp/after | tr '\n' ' ')"
