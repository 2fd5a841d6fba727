"""Servers that benchmarks and tests start on the loopback address, from Debian's packages."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import subprocess
from pathlib import Path

BIN = sorted(glob.glob("/usr/lib/postgresql/*/bin")) or [""]
HAS_POSTGRES = bool(shutil.which("pg_ctl", path=f"{BIN[-1]}{os.pathsep}{os.environ['PATH']}"))


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Postgres:
    """A PostgreSQL server with an empty database, in a folder of its own.

    Args:
        durable: survive a power cut of the machine, at the price of waiting for its disk.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.durable = durable
        self.data = folder / "data"
        self.port = free_port()
        self.url = f"postgresql://tester@127.0.0.1:{self.port}/postgres"
        # The server refuses to run as root; folders above its own must let its user pass.
        self.user = "postgres" if os.geteuid() == 0 else None
        folder.mkdir(parents=True)
        if self.user:
            shutil.chown(folder, self.user)
            for parent in folder.parents[:-2]:
                parent.chmod(parent.stat().st_mode | 0o011)
        self._call("initdb", "-D", str(self.data), "-U", "tester", "-A", "trust", "--no-sync")
        self.start()

    def start(self) -> None:
        """Returns when it accepts connections."""
        settings = {
            "fsync": "on" if self.durable else "off", "listen_addresses": "127.0.0.1", "log_connections": "on",
            "log_disconnections": "on",
        }  # fmt: skip
        options = f"-p {self.port} -k {self.data} " + " ".join(f"-c {key}={value}" for key, value in settings.items())
        self._call("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.data / "log"), "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """End it; ``immediate`` is a crash."""
        self._call("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def pids(self) -> list[int]:
        """Its processes."""
        parent = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        children = subprocess.run(["ps", "--ppid", str(parent), "-o", "pid="], capture_output=True, text=True)
        return [parent, *(int(word) for word in children.stdout.split())]

    def _call(self, program: str, *words: str) -> None:
        path = Path(BIN[-1], program) if BIN[-1] else program
        done = subprocess.run(
            [path, *words], user=self.user, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def cpu_seconds(pid: int) -> float:
    """What a process, and the children that it has waited for or has now, have used of the CPU (Linux)."""
    ticks = os.sysconf("SC_CLK_TCK")

    def used(of: int) -> float:
        words = Path(f"/proc/{of}/stat").read_text().rpartition(")")[2].split()
        return sum(int(word) for word in words[11:15]) / ticks

    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return used(pid) + sum(used(int(child)) for child in children)
