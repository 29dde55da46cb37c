"""Errors that other parts of fusegen catch by their type, and what is said of other libraries' own."""


class NotFiniteError(RuntimeError):
    """Logits from which no token can be chosen: NaN or infinity is among them."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type's name where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
