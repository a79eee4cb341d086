"""What accounts refuse: a stable code and a sentence for the person who asked."""


class AccountRefused(Exception):
    """Nothing was changed. `code` is a stable slug; `message` says what is wrong and what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
