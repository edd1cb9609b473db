"""A git repository behind HTTPS and a password: `python git_server.py DIRECTORY PORT PASSWORD`.

Makes the certificate `DIRECTORY/certificate.pem` and the repository `DIRECTORY/served/repo.git`,
prints a line when it listens on the loopback address, and serves until its standard input is
closed. A standalone script with only the standard library.
"""

from __future__ import annotations

import base64
import functools
import http.server
import os
import ssl
import subprocess
import sys
import threading


class GitHandler(http.server.SimpleHTTPRequestHandler):
    """git's plain protocol needs a file server only."""

    password = ""

    def do_GET(self) -> None:
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic" and base64.b64decode(given).decode().partition(":")[2] == self.password:
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", "0")
        self.end_headers()


def make(directory: str) -> None:
    script = """
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \\
            -keyout key.pem -out certificate.pem 2>/dev/null
        git init -q work
        git -C work -c user.name=x -c user.email=x@localhost commit -q --allow-empty -m first
        git clone -q --bare work served/repo.git
        git -C served/repo.git update-server-info
    """
    os.makedirs(os.path.join(directory, "served"))
    subprocess.run(["sh", "-ec", script], cwd=directory, check=True)


def main() -> None:
    directory, port, GitHandler.password = sys.argv[1:]
    make(directory)
    handler = functools.partial(GitHandler, directory=os.path.join(directory, "served"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(directory, "certificate.pem"), os.path.join(directory, "key.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print("listening", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
