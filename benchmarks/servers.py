"""Servers that benchmarks and tests start on the loopback address, from Debian's packages."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import subprocess
import time
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


HAS_SLURM = all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch"))) and os.geteuid() == 0

SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class Slurm:
    """A cluster of one node with two cores; jobs of the partition `high` preempt those of `low`."""

    def __init__(self, folder: Path) -> None:
        for name in ("munge", "state", "spool"):
            Path(folder, name).mkdir(parents=True)
        self.folder = folder
        munge = folder / "munge"
        munge.chmod(0o700)
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o400)
        conf = SLURM_CONF.format(
            host=socket.gethostname().partition(".")[0], controller=free_port(), daemon=free_port(), folder=folder
        )
        (folder / "slurm.conf").write_text(conf)
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed")]
        # In the foreground, each: so they end with the object, whatever happens.
        self.servers = [
            self._start(*words)
            for words in (
                ("munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files),
                ("slurmctld", "-D", "-c"),
                ("slurmd", "-D", "-c"),
            )
        ]
        deadline = time.monotonic() + 30
        while "idle" not in self.call("sinfo", "--noheader", check=False) and time.monotonic() < deadline:
            time.sleep(0.2)

    def call(self, *words: str, check: bool = True) -> str:
        """Run one of its commands; what it printed."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"{words}: {done.stderr}"
        return done.stdout

    def stop(self) -> None:
        self.call("scancel", "--user=root", check=False)
        for server in reversed(self.servers):
            server.terminate()
            server.wait()

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        server = subprocess.Popen(
            words, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(1)
        assert server.poll() is None, f"{words[0]} has not started; logs are in {self.folder}"
        return server
