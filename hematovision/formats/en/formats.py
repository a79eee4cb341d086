"""Dates and times as the product writes them: day first, 24 hours, seconds and the time zone, so that events of one
minute can be told apart.
"""

DATE_FORMAT = "j M Y"
DATETIME_FORMAT = "j M Y, H:i:s T"
SHORT_DATE_FORMAT = "j M Y"
SHORT_DATETIME_FORMAT = "j M Y, H:i T"
TIME_FORMAT = "H:i:s"
