"""The laboratories of a long history, and who works in them."""

from dataclasses import dataclass

from accounts.models import Laboratory, User
from bench.inserting import key, one_of

LABORATORIES = 20


@dataclass(frozen=True)
class People:
    """Of each laboratory its id, a reader and somebody who uploads; the demo laboratory is number 0."""

    laboratories: list[str]
    readers: list[str]
    technologists: list[str]

    def laboratory(self, case: str) -> str:
        return one_of(self.laboratories, case)

    def reader(self, case: str) -> str:
        return one_of(self.readers, case)

    def technologist(self, case: str) -> str:
        return one_of(self.technologists, case)


def people() -> People:
    reader = User.objects.select_related("laboratory").get(email="reader@demo.example")
    technologist = User.objects.get(email="technologist@demo.example")
    assert reader.laboratory is not None
    found = [(reader.laboratory, reader, technologist)]
    for number in range(1, LABORATORIES):
        laboratory = Laboratory.objects.create(name=f"Laboratory {number}")
        found.append((laboratory, somebody("reader", laboratory, number), somebody("technologist", laboratory, number)))
    return People(*([key(row[place].pk) for row in found] for place in range(3)))


def somebody(role: str, laboratory: Laboratory, number: int) -> User:
    user = User(email=f"{role}{number}@bench.example", laboratory=laboratory, role=role)
    user.set_unusable_password()
    user.save()
    return user
