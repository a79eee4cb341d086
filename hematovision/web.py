"""The web server's process: becomes `python -m gunicorn` with the same arguments.

gunicorn reads WEB_CONCURRENCY while it is imported, and ends with a traceback where that is blank or no number.
"""

import os
import sys

VARIABLE = "WEB_CONCURRENCY"


def main() -> None:
    processes = os.environ.get(VARIABLE, "").strip()
    if not processes:
        os.environ.pop(VARIABLE, None)
    elif not (processes.isascii() and processes.isdigit() and int(processes)):
        sys.exit(f"{VARIABLE} is no whole number from 1 on: {processes!r}.")
    # No process of ours stays between the one that starts the server and the server.
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *sys.argv[1:]])


if __name__ == "__main__":
    main()
