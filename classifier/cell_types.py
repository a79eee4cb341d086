"""What each cell type does and how much of it is usual: the short text beside a result, and its colour's name.

Shares are those of leukocytes in adult blood; a laboratory's own reference ranges go before them.
"""

from dataclasses import dataclass

from ml.labels import display_name


@dataclass(frozen=True)
class CellType:
    """A cell type as it is explained to a reader."""

    slug: str
    function: str
    normal_share: str

    @property
    def name(self) -> str:
        return display_name(self.slug)


CELL_TYPE_TEXTS: dict[str, CellType] = {
    cell_type.slug: cell_type
    for cell_type in (
        CellType(
            "neutrophil",
            "The first to reach an infection: engulfs bacteria and fungi, and dies doing so.",
            "50-70 % of leukocytes",
        ),
        CellType(
            "eosinophil",
            "Fights parasites that are too big to engulf, and takes part in allergy and asthma.",
            "1-4 % of leukocytes",
        ),
        CellType(
            "basophil",
            "The rarest leukocyte: releases histamine and heparin in allergic reactions.",
            "0-2 % of leukocytes",
        ),
        CellType(
            "lymphocyte",
            "The adaptive defence: B cells make antibodies, T cells and NK cells kill infected cells.",
            "20-40 % of leukocytes",
        ),
        CellType(
            "monocyte",
            "The largest leukocyte: clears debris and microbes, and becomes a macrophage in the tissues.",
            "2-8 % of leukocytes",
        ),
        CellType(
            "immature_granulocyte",
            "A promyelocyte, myelocyte or metamyelocyte on its way to a granulocyte; it belongs in the marrow.",
            "normally absent from blood",
        ),
        CellType(
            "erythroblast",
            "A red-cell precursor that still has its nucleus (nRBC).",
            "normally absent; reported per 100 leukocytes",
        ),
        CellType(
            "platelet",
            "A fragment of a megakaryocyte that starts clotting.",
            "150-400 x 10^9/L; not part of the differential",
        ),
    )
}
