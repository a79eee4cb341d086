"""The command line of the model: `python -m ml COMMAND`. JSON on stdout only, everything else on stderr."""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from ml.data_folder import data_folder
from ml.errors import ModelUnavailable, UnreadableImage, UnusableData
from ml.model_card import read_card, shipped_bundle
from ml.progress import say

# Imports stand inside the commands: `predict` must start at once and never load what only training needs.


class CommandError(Exception):
    """A command can't be carried out; the message is one sentence for the user."""


class OneSentenceParser(argparse.ArgumentParser):
    """Says what is wrong in one sentence and exits with 2."""

    def error(self, message: str) -> NoReturn:
        """Refuse unusable arguments."""
        say(f"{self.prog}: {message}")
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, or 2 with one sentence on stderr."""
    options = build_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except (CommandError, ModelUnavailable, UnusableData) as refusal:
        return refuse(str(refusal))
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130
    return 0


def refuse(sentence: str) -> int:
    """Say why on stderr and return exit status 2."""
    say(sentence)
    return 2


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = OneSentenceParser(prog="python -m ml", description="Train, check and use the blood-cell model.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=OneSentenceParser)

    train = commands.add_parser("train", help="train, calibrate and evaluate a model, and write a bundle")
    train.add_argument("--config", choices=["product"], required=True)
    train.add_argument("--data", type=Path, default=data_folder(), help="the data folder (default: %(default)s)")
    train.add_argument("--out", type=Path, required=True, help="the folder that becomes the bundle")
    train.add_argument("--weights", type=Path, help="ImageNet weights (default: those of the data folder)")
    train.add_argument("--steps", type=positive, help="optimizer steps instead of the recipe's")
    train.add_argument("--seed", type=int, help="random seed instead of the recipe's")
    train.add_argument("--version", default="1.0.0", help="version to write on the card")
    train.set_defaults(command=run_train)

    export = commands.add_parser("export", help="make the serving files of a bundle again from its training weights")
    export.add_argument("--model", type=Path, required=True, help="a folder that `train` wrote")
    export.set_defaults(command=run_export)

    calibrate = commands.add_parser("calibrate", help="calibrate a bundle again on its validation part")
    calibrate.add_argument("--model", type=Path, required=True, help="a bundle's folder")
    calibrate.add_argument("--data", type=Path, default=data_folder(), help="the data folder (default: %(default)s)")
    calibrate.set_defaults(command=run_calibrate)

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


def need_tensorflow() -> None:
    """Refuse where TensorFlow is not installed."""
    if importlib.util.find_spec("tensorflow") is None:
        raise CommandError("This command needs TensorFlow; install it with `pip install -r requirements.txt`.")


def run_train(options: argparse.Namespace) -> None:
    """`train`: one command from pictures to an evaluated bundle."""
    need_tensorflow()
    from ml.product import train_product
    from ml.recipe import Recipe

    recipe = Recipe()
    changes: dict[str, Any] = {
        name: getattr(options, name) for name in ("steps", "seed") if getattr(options, name) is not None
    }
    if options.out.exists() and not options.out.is_dir():
        raise CommandError("--out names a file; it must be a folder.")
    card = train_product(options.data, options.out, options.version, replace(recipe, **changes), options.weights)
    print_json(
        {
            "bundle": str(options.out),
            "name": card.name,
            "version": card.version,
            "sha256": card.sha256,
            "metrics": card.metrics,
        }
    )


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


def run_evaluate(options: argparse.Namespace) -> None:
    """`evaluate`: figures of a model on class folders, to a file and to stdout."""
    from ml.dataset import read_class_folders
    from ml.evaluate import report, run
    from ml.predictor import load_predictor

    pictures = read_class_folders(options.data)
    figures = report(run(load_predictor(options.model or shipped_bundle()), pictures))
    try:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CommandError(f"The figures could not be written to {options.json.name}.") from error
    print_json(figures)


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
