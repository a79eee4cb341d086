"""What one would build in an afternoon: a Flask page that keeps a Keras model and calls `predict` in the request."""

import io
import sys
import uuid
from pathlib import Path

import numpy as np
from flask import Flask, Response, jsonify, request
from PIL import Image

from ml.seed.network import build_seed_network

CLASSES = ("eosinophil", "lymphocyte", "monocyte", "neutrophil")
SIZE = 150
app = Flask(__name__)
model = build_seed_network(len(CLASSES), SIZE, Path(sys.argv[2]))


@app.post("/predict")
def predict() -> Response:
    picture = Image.open(io.BytesIO(request.files["file"].read())).convert("RGB").resize((SIZE, SIZE))
    probabilities = model.predict(np.asarray(picture, np.float32)[None] / 255.0, verbose=0)[0]
    best = int(probabilities.argmax())
    return jsonify(id=uuid.uuid4(), label=CLASSES[best], confidence=float(probabilities[best]))


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]), threaded=True)
