"""The command line of the model: `python -m ml COMMAND`. JSON on stdout only, everything else on stderr."""

import argparse
import errno
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from ml.data_folder import data_folder
from ml.errors import ModelUnavailable, UnreadableImage, UnusableData
from ml.model_card import VIEWS, read_card, shipped_bundle
from ml.progress import say

# Imports stand inside the commands: `predict` must start at once and never load what only training needs.

SEED_OPTIONS = ("batch", "size", "epochs", "more_augmentation", "unfreeze", "cache_features")
PRODUCT_OPTIONS = ("steps", "version", "leave_out")
DISK_REFUSALS = {
    errno.ENOSPC: "The disk is full; free some space and run the command again.",
    errno.EDQUOT: "The disk quota is used up; free some space and run the command again.",
    errno.EFBIG: "A file grew larger than it may here; allow larger files and run the command again.",
    errno.EROFS: "The folder to write to is on a read-only disk.",
    errno.ENAMETOOLONG: "A file name is longer than the disk allows.",
    errno.EEXIST: "A file stands where a folder is needed{}.",
    errno.ENOTDIR: "A file stands where a folder is needed{}.",
    errno.EACCES: "Permission was refused{}.",
    errno.EPERM: "Permission was refused{}.",
}


class CommandError(Exception):
    """A command can't be carried out; the message is one sentence for the user."""


class Terminated(BaseException):
    """The process was asked to end."""


class OneSentenceParser(argparse.ArgumentParser):
    """Says what is wrong in one sentence and exits with 2."""

    def error(self, message: str) -> NoReturn:
        """Refuse unusable arguments."""
        say(f"{self.prog}: {message}")
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, or 2 with one sentence on stderr; interrupted 130, ended 143."""
    options = build_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        with told_when_ended():
            command(options)
    except (CommandError, ModelUnavailable, UnusableData) as refusal:
        return refuse(str(refusal))
    except OSError as error:
        return refuse(disk_refusal(error))
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130
    except Terminated:
        say("Ended from outside.")
        return 143
    return 0


@contextmanager
def told_when_ended() -> Iterator[None]:
    """Turn the signal to end into an exception, so that what is half-written is cleared away."""

    def end(*_: object) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def disk_refusal(error: OSError) -> str:
    """Return the sentence for a disk that does not take or give a file; raise what is not the disk's doing again."""
    if error.errno not in DISK_REFUSALS:
        raise error
    where = f" for {Path(os.fsdecode(error.filename)).name!r}" if error.filename else ""
    return DISK_REFUSALS[error.errno].format(where)


def refuse(sentence: str) -> int:
    """Say why on stderr and return exit status 2."""
    say(sentence)
    return 2


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = OneSentenceParser(prog="python -m ml", description="Train, check and use the blood-cell model.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=OneSentenceParser)

    train = commands.add_parser("train", help="train, calibrate and evaluate a model, and write a bundle")
    train.add_argument("--config", choices=["product", "seed"], required=True, help="whose recipe")
    train.add_argument("--data", type=Path, default=data_folder(), help="the data folder (default: %(default)s)")
    train.add_argument("--out", type=Path, required=True, help="the folder that becomes the bundle")
    train.add_argument("--weights", type=Path, help="ImageNet weights (default: those of the data folder)")
    train.add_argument("--seed", type=natural, help="random seed instead of the recipe's")
    product = train.add_argument_group("only with --config product")
    product.add_argument("--steps", type=positive, help="optimizer steps instead of the recipe's")
    product.add_argument("--version", help="version to write on the card (default: 1.0.0)")
    product.add_argument("--leave-out", choices=["pbc", "raabin", "kaggle"], help="a source not to train on")
    seed = train.add_argument_group("only with --config seed")
    seed.add_argument("--batch", type=positive, help="pictures in a batch (default: 64)")
    seed.add_argument("--size", type=positive, help="side of the squeezed frames in pixels (default: 150)")
    seed.add_argument("--epochs", type=positive, help="times that each picture is shown (default: 5)")
    seed.add_argument("--more-augmentation", action="store_true", default=None, help="turn, shift and light them more")
    seed.add_argument("--unfreeze", action="store_true", default=None, help="train the last blocks too, afterwards")
    seed.add_argument(
        "--cache-features",
        action="store_true",
        default=None,
        help="train on features computed once, and compare with the recipe as it was written",
    )
    train.set_defaults(command=run_train)

    export = commands.add_parser("export", help="make the serving files of a bundle again from its training weights")
    export.add_argument("--model", type=Path, required=True, help="a folder that `train` wrote")
    export.set_defaults(command=run_export)

    calibrate = commands.add_parser("calibrate", help="calibrate a bundle again on its validation part")
    calibrate.add_argument("--model", type=Path, required=True, help="a bundle's folder")
    calibrate.add_argument("--data", type=Path, default=data_folder(), help="the data folder (default: %(default)s)")
    calibrate.set_defaults(command=run_calibrate)

    adapt = commands.add_parser("adapt", help="fit a bundle to another microscope with 20 to 200 labelled cells of it")
    adapt.add_argument("--model", type=Path, help="a bundle's folder (default: the shipped one)")
    adapt.add_argument("--data", type=Path, required=True, help="a folder with one folder for each cell type")
    adapt.add_argument("--out", type=Path, required=True, help="the folder that becomes the adapted bundle")
    adapt.add_argument("--views", type=int, choices=VIEWS, help="sides to look at each cell from (default: the better)")
    adapt.set_defaults(command=run_adapt)

    evaluate = commands.add_parser("evaluate", help="figures of a model on a folder of class folders")
    evaluate.add_argument("--model", type=Path, help="a bundle's folder (default: the shipped one)")
    evaluate.add_argument("--data", type=Path, required=True, help="a folder with one folder for each cell type")
    evaluate.add_argument("--json", type=Path, required=True, metavar="FILE", help="where to write the figures")
    evaluate.set_defaults(command=run_evaluate)

    predict = commands.add_parser("predict", help="classify pictures, one line each")
    predict.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    predict.add_argument("--json", action="store_true", help="one JSON object a line")
    predict.add_argument("--model", type=Path, help="a bundle's folder (default: the shipped one)")
    predict.set_defaults(command=run_predict)

    benchmark = commands.add_parser("benchmark", help="what one picture costs on one core, part by part")
    benchmark.add_argument("--model", type=Path, help="a bundle's folder (default: the shipped one)")
    benchmark.add_argument(
        "--data", type=Path, required=True, help="a folder of pictures, searched with its subfolders"
    )
    benchmark.set_defaults(command=run_benchmark)

    data = commands.add_parser("data", help="unpack the Kaggle ZIP, or `fetch bccd`")
    data.add_argument("what", nargs="*", default=["Blood Cell Images.zip"], metavar="ZIP | fetch bccd")
    data.add_argument("--out", type=Path, default=data_folder(), help="the data folder (default: %(default)s)")
    data.set_defaults(command=run_data)
    return parser


def positive(text: str) -> int:
    """Parse a whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def natural(text: str) -> int:
    """Parse a whole number from 0 to what a random seed may be."""
    number = int(text)
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError("must be from 0 to 4294967295")
    return number


def need_tensorflow() -> None:
    """Refuse where TensorFlow is not installed."""
    if importlib.util.find_spec("tensorflow") is None:
        raise CommandError("This command needs TensorFlow; install it with `pip install -r requirements.txt`.")


def run_train(options: argparse.Namespace) -> None:
    """`train`: one command from pictures to an evaluated model."""
    foreign = PRODUCT_OPTIONS if options.config == "seed" else SEED_OPTIONS
    given = next((name for name in foreign if getattr(options, name) is not None), None)
    if given is not None:
        raise CommandError(f"--{given.replace('_', '-')} does not belong to --config {options.config}.")
    need_tensorflow()
    if options.out.exists() and not options.out.is_dir():
        raise CommandError("--out names a file; it must be a folder.")
    if options.config == "seed":
        train_by_seed(options)
    else:
        train_by_product(options)


def given_options(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return the options of these names that were given."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def train_by_product(options: argparse.Namespace) -> None:
    """`train --config product`: an evaluated bundle."""
    from ml.product import train_product
    from ml.recipe import Recipe

    recipe = replace(Recipe(), **given_options(options, "seed"))
    if options.steps is not None:
        recipe = recipe.with_steps(options.steps)
    card = train_product(
        options.data,
        options.out,
        options.version or "1.0.0",
        recipe,
        options.weights,
        **given_options(options, "leave_out"),
    )
    print_json(
        {
            "bundle": str(options.out),
            "name": card.name,
            "version": card.version,
            "sha256": card.sha256,
            "metrics": card.metrics,
        }
    )


def train_by_seed(options: argparse.Namespace) -> None:
    """`train --config seed`: the model of the demonstration, and what it is worth."""
    from ml.seed.recipe import SeedRecipe, find_weights

    recipe = SeedRecipe(**given_options(options, *SEED_OPTIONS, "seed"))
    recipe.check()
    weights = find_weights(options.weights, options.data)
    from ml.seed.run import MODEL_FILE, train_seed

    print_json({"model": str(options.out / MODEL_FILE), **train_seed(options.data, options.out, recipe, weights)})


def run_export(options: argparse.Namespace) -> None:
    """`export`: Keras weights to the serving files."""
    need_tensorflow()
    from ml.product import export_again

    card = export_again(options.model)
    print_json({"bundle": str(options.model), "sha256": card.sha256, "files": dict(card.files)})


def run_calibrate(options: argparse.Namespace) -> None:
    """`calibrate`: fit temperature, thresholds and gate again, and evaluate."""
    from ml.product import calibrate_again

    card = calibrate_again(options.model, options.data)
    print_json(
        {
            "bundle": str(options.model),
            "temperature": card.temperature,
            "conformal_thresholds": dict(card.conformal_thresholds),
            "least_confidence": card.least_confidence,
            "ood": card.ood.__dict__,
            "metrics": card.metrics,
        }
    )


def run_adapt(options: argparse.Namespace) -> None:
    """`adapt`: a bundle for another microscope, and how it does there before and after."""
    from ml.adapt import adapt_bundle

    print_json(adapt_bundle(options.model or shipped_bundle(), options.data, options.out, options.views))


def run_evaluate(options: argparse.Namespace) -> None:
    """`evaluate`: figures of a model on class folders, to a file and to stdout."""
    from ml.dataset import read_class_folders
    from ml.evaluate import report, run
    from ml.predictor import load_predictor

    with written_when_whole(options.json) as target:
        pictures = read_class_folders(options.data)
        figures = report(run(load_predictor(options.model or shipped_bundle()), pictures))
        target.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print_json(figures)


@contextmanager
def written_when_whole(path: Path) -> Iterator[Path]:
    """Give a temporary file to write that replaces `path` at the end; refuses before any work where it could not."""
    if path.is_dir():
        raise CommandError(f"{path.name!r} is a folder; name a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"The folder of {path.name!r} can't be made.") from error
    temporary = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def run_benchmark(options: argparse.Namespace) -> None:
    """`benchmark`: milliseconds of each part of a prediction."""
    from ml.benchmark import benchmark

    print_json(benchmark(options.model or shipped_bundle(), options.data))


def run_predict(options: argparse.Namespace) -> None:
    """`predict`: one line a picture."""
    from ml.evaluate import classify
    from ml.predictor import load_predictor

    bundle = options.model or shipped_bundle()
    card = read_card(bundle)
    model = {"name": card.name, "version": card.version, "sha256": card.sha256}
    for path, answer in classify(load_predictor(bundle), options.images):
        if isinstance(answer, UnreadableImage):
            line: dict[str, Any] = {"file": str(path), "error": {"code": answer.code, "message": answer.message}}
            words = f"{path}: {answer.message}"
        else:
            line = {
                "file": str(path),
                "label": answer.label,
                "suggestion": answer.suggestion,
                "confidence": answer.confidence,
                "probabilities": answer.probabilities,
                "conformal_set": list(answer.conformal_set),
                "abstained": answer.abstained,
                "reason": answer.reason,
                "reason_code": answer.reason_code,
                "ood_score": answer.ood_score,
                "box": list(answer.box) if answer.box else None,
                "leukocytes": [{**vars(found), "box": list(found.box)} for found in answer.leukocytes],
                "model": model,
            }
            words = f"{path}: {answer.reason or f'{answer.label} ({answer.confidence:.0%})'}"
        if options.json:
            print_json(line)
        else:
            write_line(words)


def run_data(options: argparse.Namespace) -> None:
    """`data`: unpack the Kaggle ZIP into the data folder, or fetch a free set."""
    from ml.acquire import fetch_bccd, unpack_kaggle

    match options.what:
        case ["fetch", "bccd"]:
            print_json(fetch_bccd(options.out))
        case [archive] if archive != "fetch":
            print_json(unpack_kaggle(Path(archive), options.out))
        case _:
            raise CommandError("Give one ZIP file, or `fetch bccd`.")


def print_json(value: Any) -> None:
    """Print one JSON value on one line of stdout."""
    write_line(json.dumps(value, ensure_ascii=False))


def write_line(line: str) -> None:
    """Write one line to stdout at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
