"""The vocabulary of cell types, and the folder names that stand for them."""

import re

CELL_TYPES: tuple[str, ...] = (
    "neutrophil",
    "band_neutrophil",
    "eosinophil",
    "basophil",
    "lymphocyte",
    "monocyte",
    "promyelocyte",
    "myelocyte",
    "metamyelocyte",
    "immature_granulocyte",
    "erythroblast",
    "platelet",
    "smudge_cell",
    "artefact",
)

_ALIASES = {
    "ig": "immature_granulocyte",
    "band": "band_neutrophil",
    "nrbc": "erythroblast",
    "normoblast": "erythroblast",
    "thrombocyte": "platelet",
    "artifact": "artefact",
    "smudge": "smudge_cell",
}


def slug_for_folder(name: str) -> str:
    """Return the cell type that a folder name stands for.

    Any letter case, a plural, spaces, hyphens and a few usual short names are understood (`IG`, `Band neutrophils`).
    Raises ValueError with a sentence for an unknown name.
    """
    words = re.sub(r"[\s\-_]+", "_", name.strip().lower()).strip("_")
    for candidate in (words, words.removesuffix("s")):
        slug = _ALIASES.get(candidate, candidate)
        if slug in CELL_TYPES:
            return slug
    raise ValueError(f"The folder name {name!r} is not a known cell type; known are {', '.join(CELL_TYPES)}.")


def display_name(slug: str) -> str:
    """Return the name of a cell type for a person: `immature_granulocyte` -> `Immature granulocyte`.

    Raises ValueError for a slug that is not in the vocabulary.
    """
    if slug not in CELL_TYPES:
        raise ValueError(f"{slug!r} is not a known cell type.")
    return slug.replace("_", " ").capitalize()
