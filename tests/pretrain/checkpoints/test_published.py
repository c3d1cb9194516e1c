"""Weights by name and address: fetched once and whole, checked, and told in one sentence if they cannot be had."""

import hashlib
import sys
import types
import zlib
from pathlib import Path

import pytest
import torch

from pretrain.checkpoints import published
from pretrain.checkpoints.kinds import KINDS
from pretrain.checkpoints.published import PUBLISHED, local_weights
from pretrain.common.errors import UserError
from pretrain.common.remote_files import cached_path, page_of, refuse_unknown_address
from pretrain.models import build_model
from pretrain.training.args import parse_args


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "a.pth"
    model = build_model("convvit_base_patch16", img_size=32, embed_dim=(8, 16, 24), depth=(1, 1, 1), num_heads=2)
    torch.save({"model": model.state_dict()}, path)
    return path.read_bytes()


def kept(tmp_path) -> list[str]:
    return [
        p.name
        for p in (tmp_path / "cache").rglob("*")
        if p.is_file() and p.suffix not in (".lock", ".part", ".version")
    ]


def test_an_address_is_fetched_once(server, classifier, tmp_path):
    server.serve("/a/weights.pth", classifier)
    address = f"{server.address}/a/weights.pth"
    path = local_weights(address)
    assert path == str(cached_path(address)) and Path(path).read_bytes() == classifier
    assert local_weights(address) == path and server.asked == ["/a/weights.pth"]
    assert kept(tmp_path) == [path.rsplit("/")[-1]]
    server.serve("/b/weights.pth", classifier[::-1])
    assert cached_path(f"{server.address}/b/weights.pth") != cached_path(address)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"status": 404}, "could not be fetched .*404.*; fetch it another way and put it at .*weights-"),
        ({"length": 10**6}, r"could not be fetched \(\d+ of 1000000 bytes came\)"),
        ({"body": b"<html>Sign in</html>"}, "is not kept: it cannot be read safely"),
        ({"body": b""}, "could not be fetched .*it is empty"),
    ],
    ids=["missing", "truncated", "web page", "empty"],
)
def test_wrong_answers(server, classifier, tmp_path, answer, message):
    server.serve("/weights.pth", **{"body": classifier, **answer})
    with pytest.raises(UserError, match=message):
        local_weights(f"{server.address}/weights.pth")
    assert kept(tmp_path) == []


def test_a_transfer_goes_on(server, classifier, tmp_path):
    """What came before is not asked for again, unless the file has changed or the server does not say."""
    address = server.serve("/weights.pth", classifier[:1000], length=len(classifier))
    with pytest.raises(UserError, match=f"could not be fetched .1000 of {len(classifier)} bytes came"):
        local_weights(address)
    part = cached_path(address).with_name(f".{cached_path(address).name}.part")
    assert part.read_bytes() == classifier[:1000]
    server.serve("/weights.pth", classifier)
    assert Path(local_weights(address)).read_bytes() == classifier
    assert server.asked == ["/weights.pth", "/weights.pth from 1000"] and not part.exists()

    for changed in (False, True):  # killed before the whole file got its name, with and without another one there now
        cached_path(address).rename(part)
        version = zlib.crc32(classifier[:100]) + changed
        part.with_name(f".{cached_path(address).name}.version").write_text(f'"{version}"')
        part.write_bytes(b"other" if changed else classifier)
        assert Path(local_weights(address)).read_bytes() == classifier
    assert server.asked[2:] == [f"/weights.pth from {len(classifier)}", "/weights.pth", "/weights.pth"]
    assert kept(tmp_path) == [cached_path(address).name]


def test_no_network(server):
    address = "http://127.0.0.1:9/weights.pth"  # nobody listens there
    with pytest.raises(UserError, match="could not be fetched") as error:
        local_weights(address)
    assert address in str(error.value) and str(cached_path(address)) in str(error.value)


def test_a_cache_that_cannot_be_written_to(server, classifier, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"weights\.pth cannot be kept in .*file/weights .*another folder with FVCORE_"):
        local_weights(server.serve("/weights.pth", classifier))


def test_what_is_no_address():
    for name in ("http://[::1/weights.pth", "hf://[a/b/c.pth"):
        with pytest.raises(UserError, match=r"\[.* is no address: Invalid IPv6 URL"):
            local_weights(name)


@pytest.mark.parametrize("address", ["s3://bucket/weights.pth", "FTP://host/weights.pth"])
def test_addresses_that_nothing_fetches(address):
    message = (
        f"{address} cannot be fetched: weights are given by a path, a published name, or an https:// or hf:// addr"
    )
    flags = ["--model", "convmaev2_convvit_tiny_patch16", "--data_path", "a", "--output_dir", "b", "--init_weights"]
    for read in (local_weights, lambda name: parse_args([*flags, name])):
        with pytest.raises(UserError, match=message):
            read(address)


def test_pickles_are_not_even_fetched(server):
    with pytest.raises(UserError, match="is a pickle"):
        local_weights(f"{server.address}/weights.pkl")
    assert server.asked == []


def test_published_files_are_checked(server, classifier, monkeypatch):
    server.serve("/weights.pth", classifier)
    facts = {"address": f"{server.address}/weights.pth", "licence": "MIT", "page": "https://example.org"}
    digest = hashlib.md5(classifier).hexdigest()
    for kind, prefix, message in (
        ("MAE ViT pretraining", "", "should be a file of the kind 'MAE ViT pretraining', this one is 'ConvViT class"),
        ("ConvViT classifier", "000000", "should have an MD5 that begins with 000000"),
        ("ConvViT classifier", digest[:6], None),
    ):
        monkeypatch.setattr(published, "PUBLISHED", {"mine": {**facts, "kind": kind, "md5_prefix": prefix}})
        if message:
            with pytest.raises(UserError, match=message):
                local_weights("mine")
        else:
            assert Path(local_weights("mine")).read_bytes() == classifier


def test_sizes_of_a_model_are_read_off_published_weights(server, tmp_path, monkeypatch):
    model = build_model("convmaev2_convvit_tiny_patch16", img_size=32, mlp_ratio=(1, 2, 1))
    torch.save({"model": model.state_dict()}, tmp_path / "v2.pth")
    facts = {"address": server.serve("/v2.pth", tmp_path / "v2.pth"), "licence": "MIT", "page": "https://example.org"}
    monkeypatch.setattr(published, "PUBLISHED", {"mine": {**facts, "kind": "ConvMAE-v2 pretraining"}})
    flags = ["--model", "convmaev2_convvit_tiny_patch16", "--data_path", "a", "--output_dir", "b", "--init_weights"]
    assert parse_args([*flags, "mine"]).mlp_ratio == [1, 2, 1]
    assert parse_args([*flags, "none.pth"]).mlp_ratio == [4, 4, 4]
    for misspelt in ("mein", "min-e"):
        with pytest.raises(UserError, match=rf"'{misspelt}' is neither a file nor .* did you mean mine"):
            parse_args([*flags, misspelt])


def test_names(tmp_path, monkeypatch):
    kinds = {kind.name for kind in KINDS}
    for name, facts in PUBLISHED.items():
        assert facts["kind"] in kinds and facts["page"].startswith("https://github.com/") and facts["licence"], name
        assert page_of(facts["address"]).startswith("https://")
    assert PUBLISHED["convmae_base"]["kind"] == "ConvMAE or FastConvMAE pretraining"
    with pytest.raises(UserError, match=r"'convmae_bse' is neither a file nor .* did you mean convmae_base"):
        local_weights("convmae_bse")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "convmae_base").touch()  # a file of the user's comes first
    for name in ("convmae_base", "", "folder/none.pth"):
        assert local_weights(name) == name


def test_google_drive_and_the_hub(server, classifier, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(UserError, match=r"pip install -e .*; or fetch https://drive.google.com/file/d/abc/view"):
        local_weights("gdrive://abc")
    asked = []

    def download(id, output, quiet, resume):
        asked.append(id)
        Path(output).write_bytes(classifier)
        return output

    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=download))
    assert Path(local_weights("gdrive://abc")).read_bytes() == classifier and asked == ["abc"]
    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=lambda **_: None))
    with pytest.raises(UserError, match="Google Drive gave no file"):
        local_weights("gdrive://other")

    blob = tmp_path / "blob"
    blob.write_bytes(classifier)

    def hf_hub_download(repository, file, revision):
        asked.append((repository, file, revision))
        return str(blob)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    assert Path(local_weights("hf://me/mine/a/b.pth@v1")).read_bytes() == classifier
    assert asked[-1] == ("me/mine", "a/b.pth", "v1")
    assert Path(local_weights("HF://me/mine/c.pth")).read_bytes() == classifier
    assert asked[-1] == ("me/mine", "c.pth", None)
    with pytest.raises(UserError, match="must be hf://owner/repository/file"):
        local_weights("hf://me/mine")


def test_files_whose_path_looks_like_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run:").mkdir()
    (tmp_path / "run:" / "weights.pth").touch()
    refuse_unknown_address("run://weights.pth")  # which is that file
    with pytest.raises(UserError, match=r"run://other.pth cannot be fetched"):
        refuse_unknown_address("run://other.pth")
