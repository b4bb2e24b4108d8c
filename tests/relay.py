"""Makes PostgreSQL's socket reachable by TCP, for an account that may not use the socket."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PIECE_BYTES = 65_536


@contextmanager
def relay(path: str) -> Iterator[int]:
    """A port of 127.0.0.1 that forwards to the socket ``path``."""

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        try:
            while piece := source.recv(PIECE_BYTES):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one side has closed, and the other notices

    def accept() -> None:
        while True:
            try:
                near = listener.accept()[0]
            except OSError:
                return  # closed
            far = socket.socket(socket.AF_UNIX)
            far.connect(path)
            ends.extend((near, far))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=pass_on, args=pair, daemon=True).start()

    ends: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    for end in ends:
        end.close()
