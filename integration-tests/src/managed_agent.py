"""An agent in the hands of a service manager or a prefork server: it beats from a thread of its own, in each process that
loads it, and answers requests. Where it is run as a program it does nothing else."""

import os
import threading
import time

from varta import Status, Varta


def beat():
    handle = Varta.connect(os.environ["VARTA_TEST_SOCKET"])
    while True:
        handle.beat(Status.OK, 0)
        time.sleep(0.02)


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"well\n"]


if __name__ == "__main__":
    beat()
else:
    threading.Thread(target=beat, daemon=True).start()
