"""The name of the folder that a run writes to."""

from pretrain.common.errors import UserError

__all__ = ["check_output_folder"]


def check_output_folder(option: str, folder: str) -> None:
    """Raises UserError for a name that is empty, as a shell's variable that is not set gives it, or no UTF-8, which
    TensorBoard's files need."""
    if not folder:
        raise UserError(f"{option} is empty; name a folder, or . for the current one.")
    try:
        folder.encode()
    except UnicodeEncodeError as e:
        raise UserError(f"{option} {folder!r} is not UTF-8; choose another name.") from e
