"""Files that are named by an address: fetched once, kept in a cache, whole or not at all."""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import ParseResult, unquote, urlparse
from urllib.request import Request, urlopen

from pretrain.common.errors import UserError

__all__ = ["SCHEMES", "cached_path", "fetch", "is_remote", "refuse_unknown_address"]

logger = logging.getLogger(__name__)

SCHEMES = ("https", "http", "hf", "gdrive")
PICKLES = (".pkl", ".pyth", ".pickle")


def is_remote(name: str) -> bool:
    """Whether a name is an address that :func:`fetch` knows: `https://…`, `hf://owner/repository/file`, `gdrive://id`."""
    scheme, separator, _ = name.partition("://")
    return bool(separator) and scheme.lower() in SCHEMES


def refuse_unknown_address(name: str) -> None:
    """Raises UserError for an address, such as `s3://…`, that is not one of those that :func:`fetch` knows."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name) and not is_remote(name) and not os.path.exists(name):
        raise UserError(
            f"{name} cannot be fetched: weights are given by a path, a published name, or an https:// or hf:// address."
        )


def _parsed(address: str) -> ParseResult:
    try:
        return urlparse(address)
    except ValueError as e:
        raise UserError(f"{address} is no address: {e}.") from e


def cached_path(address: str) -> Path:
    """Where the file of an address is kept: below `$FVCORE_CACHE`, by default `~/.torch/iopath_cache`.

    Raises:
        UserError: it is no address.
    """
    parts = _parsed(address)
    folder = Path(os.path.expanduser(os.getenv("FVCORE_CACHE", "~/.torch/iopath_cache"))) / "weights"
    name = Path(unquote(parts.path)).name or parts.netloc
    suffix = Path(name).suffix or ".pth"
    token = hashlib.sha256(address.encode()).hexdigest()[:12]  # other hosts and queries may have files of this name
    return folder / f"{Path(name).stem}-{token}{suffix}"


def fetch(address: str) -> Path:
    """The file of an address, from the cache or from where it is; processes wait for each other.

    A fetched file takes its name once it is complete. What was broken off goes on at the next call.

    Args:
        address: `https://host/file`, `hf://owner/repository/path/file` (`hf://…@revision`), or `gdrive://id` of Google
            Drive, for which gdown is needed.

    Raises:
        UserError: it is the address of a pickle or of nothing, a package is missing, it cannot be reached, or the
            cache cannot be written to; the message tells the address and the way out, such as where to put a file.
    """
    from filelock import FileLock

    path = cached_path(address)
    if path.suffix in PICKLES:
        raise UserError(f"{address} is a pickle, which can run any code when it is opened, so it is not fetched.")
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=3600):
            if not path.is_file():
                _fetch(address, path)
    except OSError as e:
        raise UserError(
            f"{address} cannot be kept in {path.parent} ({e}); name another folder with FVCORE_CACHE, or name your own "
            "copy of the file."
        ) from e
    return path


def _fetch(address: str, path: Path) -> None:
    logger.info(f"Fetching {address} …")
    try:
        _FETCHERS[urlparse(address).scheme](address, path)
    except UserError:
        raise
    except Exception as e:  # each library raises its own types where it finds no network, no host, no file
        raise _unreachable(address, path, e) from e


def _unreachable(address: str, path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"{page_of(address)} could not be fetched ({reason}); fetch it another way and put it at {path}, or name your "
        "own copy of the file."
    )


def page_of(address: str) -> str:
    """The address as a browser takes it."""
    parts = _parsed(address)
    if parts.scheme == "gdrive":
        return f"https://drive.google.com/file/d/{parts.netloc}/view"
    if parts.scheme == "hf":
        owner, repository, file, revision = _hub_parts(address)
        return f"https://huggingface.co/{owner}/{repository}/resolve/{revision or 'main'}/{file}"
    return address


SECONDS_WITHOUT_DATA = 60


def _fetch_url(address: str, path: Path) -> None:
    """Goes on with an earlier part if the server says that the file is still the same (RFC 9110, section 13.1.5)."""
    part, version = _part_of(path), path.with_name(f".{path.name}.version")
    known = version.read_text() if part.is_file() and version.is_file() else ""
    try:
        _download(address, part, version, known)
    except HTTPError as e:
        if not known or e.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        _download(address, part, version, "")
    version.unlink()
    part.replace(path)


def _download(address: str, part: Path, version: Path, known: str) -> None:
    """Writes the file of an address, or what is missing of the version that is `known` ("": of none).

    Raises:
        OSError: it cannot be had, or it is broken off.
    """
    from tqdm import tqdm

    headers = {"Range": f"bytes={part.stat().st_size}-", "If-Range": known} if known else {}
    with urlopen(Request(address, headers=headers), timeout=SECONDS_WITHOUT_DATA) as response:
        goes_on = bool(headers) and response.status == HTTPStatus.PARTIAL_CONTENT
        before = part.stat().st_size if goes_on else 0
        stated = response.headers.get("Content-Length")
        total = before + int(stated) if stated else None
        version.write_text(_version_in(response.headers))
        show = {"initial": before, "total": total, "desc": part.name, "disable": not logger.isEnabledFor(logging.INFO)}
        with open(part, "ab" if goes_on else "wb") as f, tqdm.wrapattr(response, "read", **show) as source:
            shutil.copyfileobj(source, f, 2**20)
    size = part.stat().st_size
    if not size:
        raise OSError("it is empty")
    if total is not None and size < total:
        raise OSError(f"{size} of {total} bytes came")


def _part_of(path: Path) -> Path:
    """Where what has come of a file is kept until it is whole."""
    return path.with_name(f".{path.name}.part")


def _version_in(headers: Mapping[str, str]) -> str:
    """By what a server knows this version of a file again; weak tags do not stand for the same bytes."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _fetch_from_hub(address: str, path: Path) -> None:
    from huggingface_hub import hf_hub_download

    owner, repository, file, revision = _hub_parts(address)
    found = hf_hub_download(f"{owner}/{repository}", file, revision=revision)
    _link(Path(found), path)


def _hub_parts(address: str) -> tuple[str, str, str, str | None]:
    name, _, revision = address.partition("://")[2].partition("@")
    parts = name.split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise UserError(f"{address} must be hf://owner/repository/file, with @revision behind it if you want one.")
    return parts[0], parts[1], parts[2], revision or None


def _fetch_from_drive(address: str, path: Path) -> None:
    try:
        import gdown
    except ModuleNotFoundError as e:
        raise UserError(
            f"Fetching from Google Drive needs gdown: pip install -e '.[download]'; or fetch {page_of(address)} in a "
            f"browser and put it at {path}, or name your own copy of the file."
        ) from e
    temporary = _part_of(path)
    if not gdown.download(id=urlparse(address).netloc, output=str(temporary), quiet=True, resume=True):
        raise OSError("Google Drive gave no file")
    temporary.replace(path)


def _link(found: Path, path: Path) -> None:
    """Gives a file of another cache its name in this one, without a second copy where the file system can."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(found.resolve())
    temporary.replace(path)


_FETCHERS = {"https": _fetch_url, "http": _fetch_url, "hf": _fetch_from_hub, "gdrive": _fetch_from_drive}
