"""Weights by name or address. The published files, with their licences and what they must hold, are in
`published.json`.

The addresses are those on the pages of the original projects. Their sizes are not published; a transfer that ends early
is noticed by the length that the server states. Files that no page links, such as ConvMAE's own smaller and larger
first-generation models and those of FastConvMAE, are not listed.
"""

import difflib
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretrain.checkpoints.recognition import recognise
from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint
from pretrain.common.remote_files import fetch, is_remote, page_of, refuse_unknown_address

__all__ = ["PUBLISHED", "local_weights"]

logger = logging.getLogger(__name__)

PUBLISHED: Mapping[str, Mapping[str, Any]] = json.loads((Path(__file__).parent / "published.json").read_text())
"""By name: `address`, `kind` (of :mod:`pretrain.checkpoints.kinds`), `licence`, `page`, `md5_prefix` where known."""


def local_weights(name: str | os.PathLike) -> str:
    """The file of weights that are named by a published name or an address, fetched if it is not there yet.

    Args:
        name: such as `convmae_base`, `https://host/file.pth` or `hf://owner/repository/file.safetensors`; the name of a
            local file, and of anything else, is returned as it is.

    Returns:
        name of a local file.

    Raises:
        UserError: the file cannot be fetched, its address is of no kind that can be, or it is not what the name
            promises; then it is removed again.
    """
    name = os.fspath(name)
    if not name or Path(name).exists():
        return name
    facts = PUBLISHED.get(name)
    if facts is None and not is_remote(name):
        refuse_unknown_address(name)
        _refuse_misspelt(name)
        return name
    address = facts["address"] if facts else name
    if facts:
        logger.info(f"{name}: {page_of(address)} from {facts['page']}, licence: {facts['licence']}")
    path = fetch(address)
    try:
        load_checkpoint(path)
        if facts:
            _check_claim(name, facts, path)
    except UserError as e:
        path.unlink(missing_ok=True)
        raise UserError(f"What {page_of(address)} answered is not kept: {_reason(path, e)}") from e
    return str(path)


def _check_claim(name: str, facts: Mapping[str, Any], path: Path) -> None:
    """Raises UserError unless a file is of the kind that its name promises."""
    prefix = facts.get("md5_prefix", "")
    if prefix:
        with open(path, "rb") as f:
            digest = hashlib.file_digest(f, "md5").hexdigest()
        if not digest.startswith(prefix):
            raise UserError(f"{name} should have an MD5 that begins with {prefix}, this file has {digest}.")
    kind = recognise(str(path)).kind.name
    if kind != facts["kind"]:
        raise UserError(f"{name} should be a file of the kind {facts['kind']!r}, this one is {kind!r}.")


def _reason(path: Path, error: UserError) -> str:
    return str(error).replace(f"Checkpoint {path}", "it").replace(str(path), "it")


def _refuse_misspelt(name: str) -> None:
    """Raises UserError for what looks like a published name and is none; a path is left to whoever opens it."""
    if not re.fullmatch(r"[\w-]+", name):
        return
    close = difflib.get_close_matches(name, PUBLISHED, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(PUBLISHED)}."
    raise UserError(f"{name!r} is neither a file nor the name of published weights; {hint}")
