"""Where this code keeps what it need not find out twice."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(variable: str, name: str) -> Path | None:
    """The folder that an environment variable names, else `name` in the user's cache folder; None without a home."""
    named = os.environ.get(variable)
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    if base and os.path.isabs(base):
        return Path(base) / name
    home = os.path.expanduser("~")
    return Path(home) / ".cache" / name if os.path.isabs(home) else None
