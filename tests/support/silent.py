"""A file system that accepts requests and never replies: a process that waits for it ignores even
SIGKILL.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.machine import unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

# argv: the directory, and the process whose mount namespace has it. Uses the host's device; a
# machine may have none.
_SERVER = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
device = os.open("/dev/fuse", os.O_RDWR)
options = b"fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % device
namespace = os.open(f"/proc/{sys.argv[2]}/ns/mnt", os.O_RDONLY)
if libc.setns(namespace, 0) or libc.mount(b"silent", os.fsencode(sys.argv[1]), b"fuse", 0, options):
    sys.exit(os.strerror(ctypes.get_errno()))
hello = os.read(device, 1 << 17)
os.write(device, struct.pack("=Ii8sIIII48x", 80, 0, hello[8:16], 7, 31, 0, 0))
print("mounted", flush=True)
while True:
    os.read(device, 1 << 17)
"""


@contextlib.contextmanager
def silent(directory: str, leader: int) -> Iterator[None]:
    """Mount it at `directory`, an empty one, as seen by the process `leader`.

    At the end, waiting processes get an error.
    """
    server = [sys.executable, "-ISc", _SERVER, directory, str(leader)]
    with subprocess.Popen(server, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"mounted\n":
                unavailable("no file system of one's own (FUSE) can be mounted here")
            yield
        finally:
            process.kill()
            process.wait()
            enter = ["nsenter", f"--mount=/proc/{leader}/ns/mnt", "--"]
            subprocess.run([*enter, "umount", "--lazy", directory], check=False, stderr=subprocess.DEVNULL)
