"""What can go wrong through no fault of the code."""

__all__ = ["NonFiniteError", "UserError"]


class UserError(ValueError):
    """A mistake of the caller; the message names the offending value and the way out."""


class NonFiniteError(RuntimeError):
    """Losses or gradients stayed non-finite in the highest precision."""
