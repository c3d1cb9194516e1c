"""Results of a prediction on disk, image by image: none is kept in memory, and a killed job can go on."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from pretrain.common.errors import UserError
from pretrain.common.files import replacing

__all__ = ["Journal", "save_json_list"]


class Journal:
    """What was found in each image, one line of JSON for each, in a file that only grows.

    A line is written at once when its image is done. One that a kill cut off is dropped when the job goes on.

    Args:
        folder: that of the results; each process has a file of its own in it.
        about: what results depend on, such as the weights; a job goes on with the same alone.
        rank: of this process.
        resume: go on with what is there; else the process with rank 0 removes it.

    Attributes:
        images, results: how many there are, of all processes after :meth:`merge`.

    Raises:
        UserError: a file is not what a prediction wrote, or is that of another prediction.
    """

    def __init__(self, folder: Path, about: dict[str, Any], *, rank: int = 0, resume: bool = False):
        self.folder, self.about, self.images, self.results = folder, about, 0, 0
        self.path = folder / f".predictions-{rank}.jsonl"
        self._places: list[tuple[Any, Path, int]] = []
        if not resume and rank == 0:
            for path in self.files():
                path.unlink()
        if resume and self.path.is_file():
            end = self._read(self.path)
            with open(self.path, "r+b") as f:
                f.truncate(end)
        self._file: IO[bytes] | None = None

    def files(self) -> list[Path]:
        """The journals of all processes."""
        return sorted(self.folder.glob(".predictions-*.jsonl"))

    def add(self, entry: dict, results: list[dict]) -> None:
        """Notes an image: what the image list says of it, with its `id`, and what was found in it."""
        if self._file is None:
            self._file = open(self.path, "ab")  # noqa: SIM115 (closed by `remove`)
            if not self._file.tell():
                self._file.write(json.dumps(self.about).encode() + b"\n")
        place = self._file.tell()
        self._file.write(json.dumps([entry, results]).encode() + b"\n")
        self._file.flush()
        self._note(entry, results, self.path, place)

    def done(self) -> set[str]:
        """`file_name` of the images that this or another process noted."""
        everything = Journal(self.folder, self.about, rank=-1, resume=True)
        everything.merge()
        return {entry["file_name"] for entry in everything.entries()}

    def entries(self) -> Iterator[dict]:
        """What the image list says of each image, in the order of their ids."""
        return (entry for entry, _ in self._lines())

    def found(self) -> Iterator[dict]:
        """The results of all images, in the order of the images' ids."""
        return (result for _, results in self._lines() for result in results)

    def merge(self) -> None:
        """Takes in what other processes noted in files of their own."""
        for path in self.files():
            if path != self.path:
                self._read(path)

    def remove(self) -> None:
        """Removes the files of all processes, once their content is elsewhere."""
        if self._file is not None:
            self._file.close()
        for path in self.files():
            path.unlink(missing_ok=True)

    def _read(self, path: Path) -> int:
        """Notes what a file holds; returns where its whole lines end."""
        end = 0
        with open(path, "rb") as f:
            for number, line in enumerate(f):
                if not line.endswith(b"\n"):
                    break  # a kill cut it off
                try:
                    content: Any = json.loads(line) if number else dict(json.loads(line))
                    if number:
                        entry, results = content
                        self._note(entry, results, path, end)
                except (ValueError, TypeError, KeyError) as e:
                    raise UserError(f"{path} is not the journal of a prediction; leave --resume out.") from e
                if not number and content != json.loads(json.dumps(self.about)):
                    changed = ", ".join(k for k in self.about if content.get(k) != self.about[k])
                    raise UserError(
                        f"{self.folder} holds the results of another prediction ({changed} differ); name "
                        "another --output, or leave --resume out."
                    )
                end += len(line)
        return end

    def _note(self, entry: dict, results: list[dict], path: Path, place: int) -> None:
        self._places.append((entry["id"], path, place))
        self.images, self.results = self.images + 1, self.results + len(results)

    def _lines(self) -> Iterator[tuple[dict, list[dict]]]:
        files = {path: open(path, "rb") for path in {path for _, path, _ in self._places}}  # noqa: SIM115
        try:
            for _, path, place in sorted(self._places, key=lambda noted: noted[0]):
                files[path].seek(place)
                yield tuple(json.loads(files[path].readline()))
        finally:
            for file in files.values():
                file.close()


def save_json_list(values: Iterable[dict], path: str | os.PathLike) -> None:
    """Writes a JSON list whole or not at all, one value at a time and one a line.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as temporary, open(temporary, "w") as f:
        separator = "["
        for value in values:
            f.write(f"{separator}\n{json.dumps(value)}")
            separator = ","
        f.write("\n]\n" if separator == "," else "[]\n")
