"""What `make test` does: the suite on PostgreSQL and, beside it, all the rest; then one plain summary.

Whatever could not run is listed in lines that start with `not run:`; nothing is left out silently.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ml.data_folder import data_folder

ROOT = Path(__file__).resolve().parent.parent
NOTHING_CHOSEN = 5  # pytest's exit status
SKIPPED = re.compile(r"^SKIPPED \[\d+\] \S+: (?P<reason>.+)$")
CLOSING = re.compile(r"^=+ .*\b(passed|failed|error|errors|skipped|deselected|no tests ran)\b.* in [\d.]+s.* =+$")


@dataclass
class Run:
    """One run of pytest and what it said that the summary repeats. `markers` choose its tests."""

    name: str
    database: str
    markers: list[str]
    options: tuple[str, ...] = ()
    politeness: int = 0
    code: int = 0
    closing: str = "pytest did not come to its end"
    not_run: set[str] = field(default_factory=set)

    def execute(self, arguments: list[str], show: Callable[[str], None]) -> None:
        show(f"\n== The tests {self.name} ==\n")
        pytest = subprocess.Popen(
            [
                "nice",
                "-n",
                str(self.politeness),
                sys.executable,
                "-m",
                "pytest",
                "-rs",
                "--color=no",
                "-m",
                " and ".join(self.markers),
                *self.options,
                *arguments,
            ],
            cwd=ROOT,
            # The processes that tests start read what was compiled before, also where Python was told to keep nothing.
            env={**os.environ, "TEST_DATABASE": self.database, "PYTHONDONTWRITEBYTECODE": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        with pytest:
            for line in pytest.stdout or ():
                show(line)
                self.note(line.rstrip())
        # Somebody who names a few tests need not name one of every kind.
        self.code = 0 if arguments and pytest.returncode == NOTHING_CHOSEN else pytest.returncode

    def note(self, line: str) -> None:
        if skipped := SKIPPED.match(line):
            self.not_run.add(skipped["reason"])
        elif CLOSING.match(line):
            self.closing = line


def missing() -> set[str]:
    """What the machine lacks, said even if no test notices."""
    found = set()
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        found.add("the browser tests (there is no Chromium; apt-get install chromium)")
    if not data_folder().is_dir():
        found.add(f"the tests on real images (there is no folder {data_folder()}; HEMATOVISION_DATA names another)")
    return found


def main(arguments: list[str]) -> int:
    in_time = [] if "--long" in arguments else ["not long"]
    # A page looks the same on every database, and the model knows none; so does what no database is asked for.
    # The others give way to the first, whose browser tests look at how long a page keeps somebody waiting.
    # What none of its tests can come from is not read either: TensorFlow alone takes ten seconds.
    no_faults = "--ignore=tests/ml", "--ignore=tests/faults"
    no_pages = *no_faults, "--ignore=tests/browser"
    first = Run("on PostgreSQL", "postgresql", [*in_time, "not any_database"], (*no_faults, "--with-database"))
    only_faults, only_model = (f"--override-ini=testpaths=tests/{folder}" for folder in ("faults", "ml"))
    # The fault tests mostly wait to be found dead. So they begin at once, and who only computes takes what they leave.
    waiting, computing = 15, 19
    beside_it = [
        Run(
            "that break things, on PostgreSQL",
            "postgresql",
            [*in_time, "faults", "not any_database"],
            (only_faults,),
            waiting,
        ),
        Run("that break things, on SQLite", "sqlite", [*in_time, "faults"], (only_faults,), waiting),
        Run("on SQLite", "sqlite", [*in_time, "not browser"], (*no_pages, "--with-database"), computing),
        Run("of the model", "sqlite", [*in_time, "model"], (only_model,), computing),
        Run("without a database", "sqlite", [*in_time, "not model"], (*no_faults, "--without-database"), computing),
    ]
    runs = [first, *beside_it]
    held_back: list[list[str]] = [[] for _ in beside_it]
    with ThreadPoolExecutor(max_workers=3) as beside:
        others = [
            beside.submit(run.execute, arguments, lines.append) for run, lines in zip(beside_it, held_back, strict=True)
        ]
        first.execute(arguments, lambda line: print(line, end="", flush=True))
        for other in others:
            other.result()
    print("".join(line for lines in held_back for line in lines), end="")
    print("\n== Summary ==")
    for reason in sorted(missing().union(*(run.not_run for run in runs))):
        print(f"not run: {reason}")
    for run in runs:
        print(f"The tests {run.name}:\n{run.closing}", flush=True)
    # A lane that was killed has a negative code.
    return max(abs(run.code) for run in runs)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
