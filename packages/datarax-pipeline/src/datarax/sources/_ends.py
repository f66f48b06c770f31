"""StopIteration raised by a function of the user, which Python takes for the end of an epoch."""

from __future__ import annotations


def stopped(what: str) -> RuntimeError:
    """The error to raise in its place.

    Args:
      what: what raised it, and for which record.
    """
    return RuntimeError(
        f"{what} raised StopIteration, which would end the epoch before its end; return a value, "
        "or raise another error"
    )


def is_of_generator(error: RuntimeError) -> bool:
    """Whether Python made the error of a StopIteration inside a generator."""
    return isinstance(error.__cause__, StopIteration) and str(error).startswith("generator raised")
