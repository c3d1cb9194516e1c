"""Checkpoints that are damaged, made to harm, or hold what no model can use are refused in one sentence."""

import os
import pickle
import zipfile

import pytest
import torch

from pretrain.common import files
from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint, save_atomically, save_weights


def refused(path, message):
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(path)
    text = str(caught.value)
    assert path.name in text and "\n" not in text and "weights_only" not in text


def zipped_again(source, target, compression):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))


@pytest.mark.parametrize("part", ["tensor", "pickle", "directory"])
def test_one_flipped_bit(tmp_path, part):
    path = tmp_path / "w.pth"
    values = torch.arange(1000.0)
    save_atomically({"model": {"w": values}}, path)
    content = bytearray(path.read_bytes())
    needle = {"tensor": values.numpy().tobytes(), "pickle": b"_rebuild_tensor_v2", "directory": b"PK\x01\x02"}[part]
    content[content.rindex(needle) + 20] ^= 1
    path.write_bytes(content)
    refused(path, "damaged")


def test_a_compressed_archive_is_read_plainly(tmp_path):
    stored, deflated = tmp_path / "a.pth", tmp_path / "b.pth"
    model = {"w": torch.randn(1000), "b": torch.arange(5)}
    save_atomically({"model": model}, stored)
    zipped_again(stored, deflated, zipfile.ZIP_DEFLATED)
    read = load_checkpoint(deflated)["model"]
    assert all(torch.equal(read[name], model[name]) for name in model)
    content = bytearray(deflated.read_bytes())
    content[len(content) // 3] ^= 1
    deflated.write_bytes(content)
    refused(deflated, "damaged")


def test_sizes_are_looked_at_first(tmp_path, monkeypatch):
    """A small file that unpacks to a large one is refused before it is unpacked."""
    path, bomb = tmp_path / "w.pth", tmp_path / "bomb.pth"
    save_atomically({"model": {"w": torch.zeros(10**6)}}, path)
    zipped_again(path, bomb, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr("pretrain.common.archives._SMALL", 10**6)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("was unpacked"))
    refused(bomb, f"{bomb.stat().st_size} bytes would unpack to 4000")


def test_files_without_checksums_are_read_with_a_warning(tmp_path, caplog):
    path = tmp_path / "w.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(load_checkpoint(path)["w"], torch.ones(3))
    assert "without checksums" in caplog.text


def rewritten(path, old, new):
    """The archive with other bytes in its pickle, and checksums that fit."""
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: archive.read(record) for record in archive.infolist()}
    name = next(n for n in records if n.endswith("data.pkl"))
    assert records[name].count(old) == 1
    records[name] = records[name].replace(old, new)
    with zipfile.ZipFile(path, "w") as archive:
        for filename, content in records.items():
            archive.writestr(filename, content)


def number(n):
    return pickle.dumps(n, 2)[2:-1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"cpuq\x06" + number(77), b"cpuq\x06" + number(10**9)),  # elements of the record
        (number(7) + number(11), number(10**6) + number(10**6)),  # the shape
    ],
)
def test_a_tensor_larger_than_its_record(tmp_path, old, new):
    path = tmp_path / "w.pth"
    save_atomically({"w": torch.zeros(7, 11)}, path)
    rewritten(path, old, new)
    refused(path, "is told to be in a record of 308")


def test_a_memo_of_a_huge_index(tmp_path):
    path = tmp_path / "w.pth"
    save_atomically({"w": torch.zeros(2)}, path)
    rewritten(path, b"}q\x00", b"}r\xff\xff\xff\x7f")
    refused(path, "malformed")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_non_finite_weights(tmp_path, value, dtype):
    path = tmp_path / "w.pth"
    tensor = torch.ones(3, 5, dtype=dtype)
    tensor[1, 2] = value
    save_atomically({"model": {"good": torch.ones(2), "bn.running_var": tensor}}, path)
    refused(path, "(NaN|infinite numbers) in model.bn.running_var")


def test_non_finite_optimizer_state_and_safetensors(tmp_path):
    moments = {"state": {3: {"exp_avg_sq": torch.tensor([1.0, torch.nan])}}}
    save_atomically({"model": {"w": torch.ones(1)}, "optimizer": moments}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "NaN in optimizer.state.3.exp_avg_sq")
    save_weights({"w": torch.tensor(torch.inf)}, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", "infinite numbers in w")


def test_large_finite_numbers_and_empty_tensors_pass(tmp_path):
    model = {
        "large": torch.full((9,), 6e4, dtype=torch.float16),
        "empty": torch.empty(0, 3),
        "expanded": torch.ones(1).expand(5),
        "eight": torch.ones(3).to(torch.float8_e4m3fn),
        "number": torch.tensor(7),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    for zip_format in (True, False):
        if not zip_format:
            del model["eight"]  # which the format before PyTorch 1.6 cannot hold
        torch.save({"model": model}, tmp_path / "w.pth", _use_new_zipfile_serialization=zip_format)
        assert load_checkpoint(tmp_path / "w.pth")["model"].keys() == model.keys()


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("sparse", lambda: torch.eye(3).to_sparse()),
        ("sparse", lambda: torch.eye(3).to_sparse_csr()),
        ("meta", lambda: torch.empty(3, device="meta")),
        ("quantised", lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)),
    ],
)
def test_tensors_that_are_not_dense(tmp_path, kind, make):
    save_atomically({"model": {"w": make()}}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", f"{kind} tensor")


def test_names_that_are_no_text(tmp_path):
    for content in ({3: torch.ones(1)}, {"model": {("a", 1): torch.ones(1)}}):
        save_atomically(content, tmp_path / "w.pth")
        refused(tmp_path / "w.pth", "which is no text")


class Caller:
    def __reduce__(self):
        return os.getcwd, ()


class Plain:
    pass


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize(("made", "named"), [(Caller, r"posix\.getcwd"), (Plain, r"[\w.]*test_damaged_files\.Plain")])
def test_an_unsafe_object_is_named(tmp_path, zip_format, made, named):
    torch.save({"args": made()}, tmp_path / "w.pth", _use_new_zipfile_serialization=zip_format)
    refused(tmp_path / "w.pth", rf"cannot be read safely: it holds {named}, ")


def test_a_file_is_checked_once_and_again_when_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    checked = []
    monkeypatch.setattr(files, "check_archive", lambda path: checked.append(path))
    for expected in (1, 1, 2):
        if expected == 2:
            save_atomically({"w": torch.ones(2)}, path)
        elif not path.exists():
            save_atomically({"w": torch.zeros(1)}, path)
        load_checkpoint(path)
        assert len(checked) == expected


def test_a_flipped_bit_in_a_safetensors_file_that_was_written_here(tmp_path):
    path = tmp_path / "w.safetensors"
    state = {
        "w": torch.ones(4, 5).T,
        "b": torch.arange(3, dtype=torch.bfloat16),
        "n": torch.tensor(7),
        "e": torch.ones(0),
    }
    save_weights(state, path)
    assert load_checkpoint(path).keys() == state.keys()
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    refused(path, "damaged: its checksum")


def safetensors(header: bytes, data: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    "content",
    [
        safetensors(b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(12)),  # not all is covered
        safetensors(b'{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}', bytes(8)),  # shape
        safetensors(b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}', bytes(12)),  # a gap
        safetensors(
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],'
            b'"data_offsets":[4,12]}}',
            bytes(12),
        ),  # two tensors in one place
        (1 << 62).to_bytes(8, "little") + b"{}",
    ],
)
def test_safetensors_whose_header_does_not_fit(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    refused(tmp_path / "w.safetensors", "damaged")
