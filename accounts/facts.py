"""Facts: rows that are written once and never changed or deleted."""

from typing import Any, ClassVar, NoReturn, TypeVar

from django.db import models


class FactError(TypeError):
    """Somebody tried to change or delete a fact."""


FactModel = TypeVar("FactModel", bound="Fact")


class FactQuerySet(models.QuerySet[FactModel]):
    def update(self, **kwargs: Any) -> NoReturn:
        message = f"{self.model.__name__} is a fact: it is never changed."
        raise FactError(message)

    def delete(self) -> NoReturn:
        message = f"{self.model.__name__} is a fact: it is never deleted."
        raise FactError(message)


class Fact(models.Model):
    """Base of insert-only models. The triggers of `install_fact_triggers` say the same to plain SQL."""

    objects: models.Manager[Any] = FactQuerySet.as_manager()
    # What else the database refuses of this table: the endings of its triggers' names.
    also_refused: ClassVar[tuple[str, ...]] = ()

    class Meta:
        abstract = True

    def save(self, **kwargs: Any) -> None:
        if not self._state.adding:
            message = f"{type(self).__name__} is a fact: it is never changed."
            raise FactError(message)
        super().save(force_insert=True, using=kwargs.get("using"))

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        message = f"{type(self).__name__} is a fact: it is never deleted."
        raise FactError(message)
