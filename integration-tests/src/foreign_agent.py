"""Does what the program `it-foreign` does, with the published Python package."""

import select
import sys
import time

from varta import Status, Varta, panic

arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))


def address(text):
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)


def key(path):
    with open(path) as file:
        return bytes.fromhex(file.read().strip())


if "--socket" in arguments:
    connect, install, told = Varta.connect, panic.install_excepthook_uds, [arguments["--socket"]]
elif "--udp" in arguments:
    connect, install, told = Varta.connect_udp, panic.install_excepthook_udp, [address(arguments["--udp"])]
elif "--key-file" in arguments:
    connect, install = Varta.connect_secure_udp, panic.install_excepthook_secure_udp
    told = [address(arguments["--secure-udp"]), key(arguments["--key-file"])]
else:
    # There is no hook for a master key.
    connect, install = Varta.connect_secure_udp_with_master, None
    told = [address(arguments["--secure-udp"]), key(arguments["--master-key-file"])]

if install is not None:
    install(*told)
handles = [connect(*told)]
status, payload = Status.OK, 7
due = time.monotonic()
print("ready", flush=True)
while True:
    if select.select([sys.stdin], [], [], max(0, due - time.monotonic()))[0]:
        command = sys.stdin.readline().split()
        if not command:
            break
        if command[0] == "second":
            handles.append(connect(*told))
        elif command[0] == "recreate":
            for handle in handles:
                handle.close()
            handles = [connect(*told)]
        elif command[0] == "status":
            status = Status[command[1].upper()]
        elif command[0] == "count":
            payload += 1
        elif command[0] == "panic":
            print("ok", flush=True)
            raise RuntimeError("as the test wished")
        else:
            print("error: what is", *command, flush=True)
            break
        print("ok", flush=True)
    else:
        for handle in handles:
            handle.beat(status, payload)
        due = time.monotonic() + 0.1
