"""Machines of one instance that share nothing but what goes over the network: each has a copy of the code, a folder of
its own, and reaches PostgreSQL, Redis and the object store by TCP alone.

Where the kernel lets us (root, with `ip`), each is a network namespace behind a bridge, with a name of its own and
without sight of the others' folders; its cable can be pulled. Elsewhere they are processes with folders of their own.
"""

import os
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

from hematovision.embedded import die_with_parent
from hematovision.supervisor import beat_command, web_command, worker_command
from tests.faults.instance import ROOT, free_port

CHUNK = 64 * 1024
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "var", "media", "__pycache__", ".*_cache", ".hypothesis")
# In the namespace of a machine: its name, and nothing where the others' folders are.
SET_UP = 'hostname "$1"; for each in $2; do mount -t tmpfs none "$each"; done; shift 2; exec "$@"'


class Forwarder:
    """Passes TCP connections on to an address that a machine can't reach by itself."""

    def __init__(self, host: str, target: str | tuple[str, int]) -> None:
        self.target = target
        self.listener = socket.create_server((host, 0))
        self.address: tuple[str, int] = self.listener.getsockname()[:2]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX if isinstance(self.target, str) else socket.AF_INET)
            try:
                far.connect(self.target)
            except OSError:
                near.close()
                continue
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self.pump, args=(one, other), daemon=True).start()

    @staticmethod
    def pump(one: socket.socket, other: socket.socket) -> None:
        try:
            while content := one.recv(CHUNK):
                other.sendall(content)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                end.close()

    def close(self) -> None:
        self.listener.close()


class Network:
    """What connects the machines: a bridge with one address of ours, or this machine's own loopback."""

    def __init__(self) -> None:
        self.mark = f"hv{os.getpid() % 100_000:05}"
        self.names: list[str] = []
        self.separate = os.getuid() == 0 and shutil.which("ip") is not None and self.builds_a_bridge()
        self.address = f"{self.subnet}.1" if self.separate else "127.0.0.1"

    @property
    def subnet(self) -> str:
        return f"10.213.{os.getpid() % 250}"

    def ip(self, *words: str) -> bool:
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0

    def builds_a_bridge(self) -> bool:
        bridge = self.mark
        return (
            self.ip("link", "add", bridge, "type", "bridge")
            and self.ip("addr", "add", f"{self.subnet}.1/24", "dev", bridge)
            and self.ip("link", "set", bridge, "up")
        )

    def add(self, number: int) -> tuple[str, str]:
        """A namespace with one cable to the bridge: its name and its address."""
        name, ours, address = f"{self.mark}n{number}", f"{self.mark}v{number}", f"{self.subnet}.{10 + number}"
        theirs = f"{self.mark}e{number}"
        steps = (
            ("netns", "add", name),
            ("link", "add", ours, "type", "veth", "peer", "name", theirs),
            ("link", "set", theirs, "netns", name),
            ("link", "set", ours, "master", self.mark),
            ("link", "set", ours, "up"),
            ("-n", name, "addr", "add", f"{address}/24", "dev", theirs),
            ("-n", name, "link", "set", theirs, "up"),
            ("-n", name, "link", "set", "lo", "up"),
        )
        self.names.append(name)
        for step in steps:
            assert self.ip(*step), step
        return name, address

    def cable(self, number: int, state: str) -> None:
        """Pull the cable of a machine (`down`) or put it back (`up`)."""
        assert self.ip("link", "set", f"{self.mark}v{number}", state)

    def close(self) -> None:
        for name in self.names:
            self.ip("netns", "del", name)
        if self.separate:
            self.ip("link", "del", self.mark)


class Host:
    """One machine with its own copy of the code and its own state; it runs one kind of process."""

    def __init__(self, network: Network, number: int, folder: Path, environment: dict[str, str]) -> None:
        self.number, self.folder, self.network = number, folder, network
        self.code, self.var = folder / "code", folder / "var"
        self.name = f"machine-{number}"
        shutil.copytree(ROOT, self.code, ignore=LEFT_OUT)
        (self.code / ".venv").symlink_to(ROOT / ".venv")
        self.namespace, self.address = network.add(number) if network.separate else ("", "127.0.0.1")
        self.port = free_port()
        self.environment = {**environment, "HEMATOVISION_VAR": str(self.var), "PORT": str(self.port)}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, kind: str, others: list["Host"]) -> None:
        commands = {
            "web": web_command(f"0.0.0.0:{self.port}" if self.namespace else f"127.0.0.1:{self.port}"),
            "worker": worker_command(),
            "beat": beat_command(self.var),
        }
        command = commands[kind]
        if self.namespace:
            hidden = " ".join(str(other.folder) for other in others if other is not self)
            inside = ["unshare", "--mount", "--uts", "sh", "-ec", SET_UP, "sh", self.name, hidden]
            command = ["nsenter", f"--net=/run/netns/{self.namespace}", *inside, *command]
        else:
            command = [*command, "--hostname", f"celery@{self.name}"] if kind == "worker" else command
        with (self.var / f"{kind}-output.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.code,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=die_with_parent(),
            )

    def cut_power(self) -> None:
        """`kill -9` of all that runs on it."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def files(self) -> list[str]:
        """What lies in its folder beside the code, and bears the name of a picture."""
        kinds = (".jpg", ".png", ".webp")
        return [str(path) for path in self.var.rglob("*") if path.suffix in kinds and "static" not in path.parts]
