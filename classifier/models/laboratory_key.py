"""The laboratory of a row, written beside it: so an index can begin with it, and a list stays as fast as it was."""

from typing import Any

from django.db import models


class LaboratoryKey(models.ForeignKey):
    """The laboratory of the case or image that the row belongs to (`of`), copied whenever a row is written anew.

    A case never moves to another laboratory, so the copy never grows old.
    """

    def __init__(self, *, of: str, **options: Any) -> None:
        self.of = of
        # Indexes that begin with it name it themselves.
        fixed = {"to": "accounts.Laboratory", "on_delete": models.PROTECT, "related_name": "+", "db_index": False}
        super().__init__(**{**options, **fixed, "editable": False})

    def deconstruct(self) -> Any:
        name, path, args, options = super().deconstruct()
        for fixed in ("to", "on_delete", "related_name", "db_index", "editable"):
            options.pop(fixed, None)
        return name, path, args, {**options, "of": self.of}

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        if add:
            setattr(model_instance, self.attname, getattr(model_instance, self.of).laboratory_id)
        return super().pre_save(model_instance, add)
