#!/usr/bin/env bash
# SO_PEERCRED and SCM_CREDENTIALS of one connection name different users.
#
# Version: Linux 6.18.44, Python 3 (its standard library only). It takes root, to have two uids.
# Expected: one process that connects to a Unix socket and sends over it is one user for the kernel, whichever way the
# receiver asks, as unix(7) describes both as the credentials of the process; so a server may check SO_PEERCRED when a
# connection comes and SCM_CREDENTIALS with each message, and both agree while the process does not change its uids.
# Behaviour: SO_PEERCRED has the effective uid and gid of who connected. SCM_CREDENTIALS, where the sender has not
# filled them in, has the real ones of who sends. For a program with a set-user-ID bit, and for daemons that have changed
# their effective uid only, they differ, and a server that uses both takes one process for two users.
# Output seen:
#   real uid 1000, effective uid 2000, real gid 3000, effective gid 4000
#   SO_PEERCRED: uid 2000, gid 4000
#   SCM_CREDENTIALS: uid 1000, gid 3000
set -euo pipefail

if [ "$(id -u)" != 0 ]; then
    echo "this takes root" >&2
    exit 2
fi
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
chmod 755 "$place"
cat >"$place/trial.py" <<'PYTHON'
import os, socket, struct, sys

path = os.path.join(sys.argv[1], "socket")
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(path)
os.chmod(path, 0o666)
listener.listen()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
child = os.fork()
if child == 0:
    os.setgroups([])
    os.setresgid(3000, 4000, 4000)
    os.setresuid(1000, 2000, 2000)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect(path)
    client.send(b"x")
    os._exit(0)
connection, _ = listener.accept()
connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
_, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
print("real uid 1000, effective uid 2000, real gid 3000, effective gid 4000")
print(f"SO_PEERCRED: uid {uid}, gid {gid}")
_, messages, _, _ = connection.recvmsg(1, 64)
for level, kind, data in messages:
    if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
        _, uid, gid = struct.unpack("3i", data[:12])
        print(f"SCM_CREDENTIALS: uid {uid}, gid {gid}")
os.waitpid(child, 0)
PYTHON
cat >"$place/seen" <<'SEEN'
real uid 1000, effective uid 2000, real gid 3000, effective gid 4000
SO_PEERCRED: uid 2000, gid 4000
SCM_CREDENTIALS: uid 1000, gid 3000
SEEN
python3 "$place/trial.py" "$place" >"$place/now"
cat "$place/now"
diff "$place/seen" "$place/now"
