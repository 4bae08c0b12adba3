"""Ports that nobody else takes: servers of tests run beside each other, and some are away for a while and come back."""

import os
import socket
from itertools import count

numbers = count()
MARKS: list[socket.socket] = []  # on the same number, but of UDP, for as long as this process lives


def free_port() -> int:
    """Below those that the system hands out by itself, and marked: nobody takes it before it is used, or while its server is
    away."""
    while True:
        port = 12_000 + (97 * os.getpid() + next(numbers)) % 20_000
        mark = socket.socket(type=socket.SOCK_DGRAM)
        with socket.socket() as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: connections of old are no hindrance
            try:
                mark.bind(("127.0.0.1", port))
                found.bind(("127.0.0.1", port))
            except OSError:
                mark.close()
                continue
        MARKS.append(mark)
        return port


def taken_port() -> socket.socket:
    """A port that is ours from now on; nobody is heard there until somebody listens."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken
