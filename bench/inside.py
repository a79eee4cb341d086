"""Runs a module of the bench within the instance that the environment names: `python -m bench.inside MODULE [WORD...]`.

Models can only be imported once Django is set up, so this comes first and the module's imports after it.
"""

import os
import sys
from importlib import import_module

import django


def main(module: str, words: list[str]) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hematovision.settings")
    django.setup()
    import_module(module).main(words)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
