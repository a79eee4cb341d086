"""The network in LiteRT: pixels in, feature maps, logits and textures out."""

import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelUnavailable
from ml.preprocess import network_input

Floats = NDArray[np.float32]

# Of four the feature maps stay in the cache of a core: a tenth faster than eight, and a third of the memory.
_BLOCK_SIZES = (4, 1)


class Output(NamedTuple):
    """What the network makes of n squares: feature maps (n, h, w, 1280), logits (n, classes), and the mean and the
    deviation of an earlier layer's channels, `texture` (n, 1152), which is (n, 0) in bundles before version 1.2.0.
    """

    maps: Floats
    logits: Floats
    texture: Floats


class Runtime:
    """Runs a serving model. Safe to call from several threads: calls wait for each other."""

    def __init__(self, model: bytes, threads: int = 2) -> None:
        self._model = model
        self._threads = threads
        self._lock = threading.Lock()
        self._blocks = {size: self._block(size) for size in _BLOCK_SIZES}

    @classmethod
    def of_file(cls, path: Path, threads: int = 2) -> "Runtime":
        """Load a model file."""
        return cls(path.read_bytes(), threads)

    def run(self, pixels: NDArray[np.uint8]) -> Output:
        """Return what the network makes of uint8 pixels (n, S, S, 3), n >= 1."""
        parts = []
        start = 0
        with self._lock:
            while start < len(pixels):
                size = next(size for size in _BLOCK_SIZES if size <= len(pixels) - start)
                parts.append(self._blocks[size].run(pixels[start : start + size]))
                start += size
        return Output(*(np.concatenate(own) for own in zip(*parts, strict=True)))

    def _block(self, size: int) -> "_Block":
        # Here, and not at the top: the runtime's libraries take a third of a second to load.
        from ai_edge_litert.interpreter import Interpreter

        try:
            return _Block(Interpreter(model_content=self._model, num_threads=self._threads), size)
        except (ValueError, RuntimeError) as error:
            raise ModelUnavailable("model_incompatible", "The installed model can't be run by this version.") from error


class _Block:
    """An interpreter for one batch size: changing it would lay out the whole network anew, which costs more than a
    run.
    """

    def __init__(self, interpreter: Any, size: int) -> None:
        self._interpreter = interpreter
        source = interpreter.get_input_details()[0]
        self._input = source["index"]
        outputs = interpreter.get_output_details()
        maps, flat = ([each for each in outputs if len(each["shape"]) == length] for length in (4, 2))
        if len(maps) != 1 or len(flat) not in (1, 2) or len(outputs) != 1 + len(flat):
            raise ModelUnavailable(
                "model_incompatible", "The installed model lacks the outputs that this version needs."
            )
        # Their order is the converter's; a texture has many more numbers than there are cell types.
        flat.sort(key=lambda each: int(each["shape"][1]))
        self._outputs = [each["index"] for each in (*maps, *flat)]
        interpreter.resize_tensor_input(self._input, (size, *source["shape"][1:]))
        interpreter.allocate_tensors()

    def run(self, pixels: NDArray[np.uint8]) -> Output:
        self._interpreter.set_tensor(self._input, network_input(pixels))
        self._interpreter.invoke()
        maps, logits, *texture = (self._interpreter.get_tensor(index) for index in self._outputs)
        return Output(maps, logits, texture[0] if texture else np.zeros((len(pixels), 0), np.float32))
