"""Servers on loopback that record which credential arrived."""

from __future__ import annotations

import contextlib
import http.server
import os
import pathlib
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Asked:
    """One request, and the command lines of all processes at that time."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.command_lines = command_lines()
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body

    @property
    def credential(self) -> str:
        return self.headers.get("authorization", "")


def command_lines() -> bytes:
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            found.append(path.read_bytes())
    return b"".join(found)


class Answer:
    def __init__(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.status = status
        self.body = body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def unauthorized(scheme: str = "Basic") -> Answer:
    return Answer(401, WWW_Authenticate=f'{scheme} realm="x"')


class RecordingServer:
    """An HTTP server, with TLS if there is a certificate, on a port of loopback or a Unix
    socket."""

    def __init__(
        self,
        answer: Callable[[Asked], Answer],
        certificate: Certificate | None = None,
        path: pathlib.Path | None = None,
    ) -> None:
        self.asked: list[Asked] = []
        self.answer = answer
        owner = self

        class RecordingHandler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, body)
                owner.asked.append(asked)
                answer = owner.answer(asked)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

            do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815 - the names are the library's

            def address_string(self) -> str:
                return "peer"

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RecordingHandler, bind_and_activate=False)
        self._server.daemon_threads = True
        if path is None:
            self._server.server_bind()
        else:
            self._server.socket.close()
            self._server.socket = socket.socket(socket.AF_UNIX)
            self._server.socket.bind(os.fspath(path))
        self._server.server_activate()
        self.host = f"127.0.0.1:{self._server.server_address[1]}" if path is None else ""
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.path, certificate.key)
            # The handler does the handshake, so that a client that does not trust us does not end
            # the server.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def credentials(self) -> set[str]:
        """Every credential that arrived."""
        return {one.credential for one in self.asked if one.credential}

    def close(self) -> None:
        self._server.shutdown()
        with contextlib.suppress(OSError):
            self._server.socket.close()
        self._thread.join()


class Certificate:
    """A self-signed certificate for 127.0.0.1."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.path = directory / "server.pem"
        self.key = directory / "server.key"
        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        argv += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*argv, "-keyout", self.key, "-out", self.path], check=True, capture_output=True)
