"""A relay between a browser and a server, whose connections a test can cut or hold."""

import contextlib
import socket
import threading


class Relay:
    """Passes bytes on to a port of this machine, until it is cut; then it refuses connections."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.is_cut = False
        self.held = b""  # what follows it in an answer comes after `released`
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close all connections, and each new one at once."""
        self.is_cut = True
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def restore(self) -> None:
        self.is_cut = False

    def close(self) -> None:
        self.released.set()
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                browser = self._listener.accept()[0]
                if self.is_cut:
                    browser.close()
                    continue
                server = socket.create_connection(self._target)
                self._sockets += [browser, server]
                for ends in ((browser, server), (server, browser)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(65536):
                start, held, rest = data.partition(self.held or b"\0no text has it")
                target.sendall(start + held)
                if held:
                    self.released.wait()
                    target.sendall(rest)
