"""Make `.venv` ready for a task, then become that task: what stands behind `make run` and `make test`.

Standard library only, and no syntax newer than Python 3.6: under any Python 3 it must get far enough to say in one
sentence what is wrong.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from typing import Dict, List, Tuple

OLDEST, NEWEST = (3, 11), (3, 13)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "installed.json")

SERVING = ("requirements-web.txt", "requirements-worker.txt")
EVERYTHING = SERVING + ("requirements.txt", "requirements-dev.txt")
# What a task needs installed, and what the virtual environment's Python then runs.
TASKS = {
    "run": (SERVING, ["-m", "hematovision.supervisor"]),
    "install": (EVERYTHING, None),
    "test": (EVERYTHING, ["-m", "tests.run"]),
    "test-all": (EVERYTHING, ["-m", "tests.run", "--long"]),
    "bench": (EVERYTHING, ["-m", "bench"]),
    "bench-quick": (EVERYTHING, ["-m", "bench", "--quick"]),
    "bench-soak": (EVERYTHING, ["-m", "bench", "--only", "soak"]),
}
GIGABYTE = 1000**3
ROOM = {SERVING: 1 * GIGABYTE, EVERYTHING: 5 * GIGABYTE}


class CannotStart(Exception):
    """The sentence that the user reads."""


def say(line: str) -> None:
    print(line, flush=True)


def version_text(version: Tuple[int, int]) -> str:
    return "{}.{}".format(*version)


def shortcoming() -> str:
    """What keeps this Python from making the virtual environment, if anything does."""
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        return f"HematoVision needs Python {version_text(OLDEST)} to {version_text(NEWEST)}, and {sys.executable} is Python {version_text(version)}; name another one with `make PYTHON=...`."
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        return f"Python's venv module is missing; on Debian or Ubuntu, `apt install python{version_text(version)}-venv` brings it."
    return ""


def find_other_python() -> str:
    """Another Python on the PATH that will do."""
    check = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        candidate = shutil.which(f"python3.{minor}")
        if not candidate:
            continue
        answer = subprocess.run(
            [candidate, "-I", "-c", check],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        if answer.stdout.split() == ["3", str(minor)]:
            return candidate
    return ""


def fingerprint(name: str) -> str:
    with open(os.path.join(ROOT, name), "rb") as lock:
        return hashlib.sha256(lock.read()).hexdigest()


def read_stamp() -> Dict[str, str]:
    """Lock file -> hash of what is installed; empty unless the virtual environment is whole and its Python starts."""
    try:
        with open(STAMP) as stamp:
            installed = json.load(stamp)
    except (OSError, ValueError):
        return {}
    try:
        alive = subprocess.run([VENV_PYTHON, "-I", "-c", ""], stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        alive = False
    return installed if alive and isinstance(installed, dict) else {}


def write_stamp(installed: Dict[str, str]) -> None:
    with open(STAMP + ".new", "w") as stamp:
        json.dump(installed, stamp, indent=1, sort_keys=True)
    os.replace(STAMP + ".new", STAMP)


def check_place(locks: Tuple[str, ...]) -> None:
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "AMD64"):
        raise CannotStart(f"HematoVision runs on Linux on x86-64; this is {platform.system()} on {platform.machine()}.")
    probe = os.path.join(ROOT, f".write-probe-{os.getpid()}")
    try:
        os.mkdir(probe)
        os.rmdir(probe)
    except OSError as error:
        raise CannotStart(f"The folder {ROOT} cannot be written: {error.strerror}.")
    free = shutil.disk_usage(ROOT).free
    if free < ROOM[locks]:
        raise CannotStart(
            f"There is not enough room in {ROOT}: {free / GIGABYTE:.1f} GB are free, and the installation needs {ROOM[locks] / GIGABYTE:.0f} GB."
        )


def make_environment() -> None:
    say(f"Making the virtual environment in .venv with Python {platform.python_version()}.")
    made = subprocess.run(
        [sys.executable, "-I", "-m", "venv", "--clear", VENV],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    if made.returncode:
        raise CannotStart(f"The virtual environment could not be made: {last_line(made.stdout)}")


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given."


def install(locks: Tuple[str, ...]) -> None:
    """Run pip on the locks; every package is pinned with its hash, and the locks are complete (hence --no-deps)."""
    pinned = set()
    for name in locks:
        with open(os.path.join(ROOT, name)) as lock:
            pinned.update(line.split("==")[0] for line in lock if "==" in line and not line.startswith((" ", "#")))
    say(
        "Installing the packages in {} ({} pins); only the first time takes minutes.".format(
            " and ".join(locks), len(pinned)
        )
    )
    command = [
        VENV_PYTHON,
        "-I",
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar=off",
    ]
    command += ["--require-hashes", "--no-deps", "--only-binary=:all:"]
    for name in locks:
        command += ["-r", name]
    pip = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        universal_newlines=True,
        bufsize=1,
    )
    try:
        lines = watch(pip, len(pinned))
    except KeyboardInterrupt:
        pip.terminate()
        pip.wait()
        raise
    if pip.wait():
        errors = [line for line in lines if line.startswith("ERROR:")] or lines
        # pip warns of a failing connection and then only says that it found no such package.
        offline = any("Retrying (" in line or "connection error" in line.lower() for line in lines)
        verb = "reach the package index" if offline else "install the packages"
        raise CannotStart("pip could not {}: {}".format(verb, last_line("\n".join(errors))))


def watch(pip: "subprocess.Popen[str]", total: int) -> List[str]:
    """Show how far pip is, without its hundreds of lines; return the last of them."""
    lines, seen, told = [], 0, time.time()
    for line in pip.stdout or ():
        lines = (lines + [line.strip()])[-50:]
        seen += line.startswith("Collecting ")
        if line.startswith("Installing collected"):
            say("  unpacking ...")
        elif line.startswith("Collecting ") and time.time() - told > 5:
            told = time.time()
            say("  {} of {}: {}".format(seen, total, line.split()[1].split("==")[0]))
    return lines


def prepare(locks: Tuple[str, ...]) -> None:
    """Bring `.venv` to the state that the locks describe; quick if it is there already."""
    wanted = {name: fingerprint(name) for name in locks}
    if wanted.items() <= read_stamp().items():
        return
    problem = shortcoming()
    if problem:
        other = find_other_python()
        if not other or os.environ.get("HEMATOVISION_PYTHON") == other:
            raise CannotStart(problem)
        say(f"Using {other}.")
        os.environ["HEMATOVISION_PYTHON"] = other  # asked once; a second refusal is final
        os.execv(other, [other, "-I", os.path.abspath(__file__)] + sys.argv[1:])
    check_place(locks)
    # Two installations at the same time (`make run` beside `make test`) wait for each other.
    folder = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        installed = read_stamp()
        if wanted.items() <= installed.items():
            return
        if not installed:
            make_environment()  # nothing there, or a half-made one
        elif os.path.exists(STAMP):
            os.unlink(STAMP)  # until pip is through, it is half-made
        install(locks)
        write_stamp(dict(installed, **wanted))
        say("Installed.")
    finally:
        os.close(folder)


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] not in TASKS:
        raise CannotStart("Usage: bootstrap.py {}".format("|".join(sorted(TASKS))))
    locks, arguments = TASKS[sys.argv[1]]
    try:
        prepare(locks)
    except OSError as error:
        raise CannotStart(f"{error.filename or ROOT}: {error.strerror}.")
    os.chdir(ROOT)
    if arguments:
        sys.stdout.flush()
        os.execv(VENV_PYTHON, [VENV_PYTHON] + arguments)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except CannotStart as refusal:
        print(refusal, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Stopped; the next start picks up from here.", file=sys.stderr)
        sys.exit(130)
