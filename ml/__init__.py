"""The model of HematoVision: finds the leukocyte in a picture, classifies it, and says when it does not know."""

import os

# numpy's matrices here are tiny: its threads would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
