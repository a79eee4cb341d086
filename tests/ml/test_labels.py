import pytest

from ml.labels import CELL_TYPES, display_name, slug_for_folder


@pytest.mark.parametrize(
    ("folder", "slug"),
    [
        ("neutrophil", "neutrophil"),
        ("NEUTROPHIL", "neutrophil"),
        ("Neutrophils", "neutrophil"),
        ("ig", "immature_granulocyte"),
        ("IG", "immature_granulocyte"),
        ("Immature Granulocytes", "immature_granulocyte"),
        ("band-neutrophil", "band_neutrophil"),
        ("Band neutrophils", "band_neutrophil"),
        ("erythroblasts", "erythroblast"),
        ("Smudge Cells", "smudge_cell"),
        ("artefacts", "artefact"),
        ("artifact", "artefact"),
        (" platelet ", "platelet"),
    ],
)
def test_folder_names_are_understood_in_any_spelling(folder: str, slug: str) -> None:
    assert slug_for_folder(folder) == slug


def test_every_cell_type_is_its_own_folder_name() -> None:
    assert [slug_for_folder(slug) for slug in CELL_TYPES] == list(CELL_TYPES)


@pytest.mark.parametrize("folder", ["", "blast", "neutro", "TRAIN", "s"])
def test_unknown_folder_name_is_refused_in_a_sentence(folder: str) -> None:
    with pytest.raises(ValueError, match="is not a known cell type"):
        slug_for_folder(folder)


def test_display_name_is_for_people() -> None:
    assert display_name("immature_granulocyte") == "Immature granulocyte"
    with pytest.raises(ValueError, match="not a known"):
        display_name("ig")
