"""Room on the disk, for the banner and the settings page."""

from django import template

from classifier import storage_use

register = template.Library()


@register.simple_tag
def nearly_full_disk() -> storage_use.Disk | None:
    """The disk of the pictures when it is nearly full, else None."""
    disk = storage_use.disk()
    return disk if disk and disk.is_nearly_full else None


@register.filter
def size(number: int) -> str:
    """1400000000 -> `1.4 GB`."""
    return storage_use.size_in_words(number)
