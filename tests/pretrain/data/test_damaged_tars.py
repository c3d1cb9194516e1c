"""Tar files that are damaged, compressed, cut off or oddly made are told of, and nothing of them is lost silently."""

import gzip
import io
import tarfile

import pytest
import tar_files
from tar_files import shards, tar_of, write_tar

from pretrain.common.errors import UserError
from pretrain.data.datasets import CorruptImages, ImageDataset
from pretrain.data.readers import open_reader
from pretrain.data.transforms import train_transform


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    return tar_files.pictures()


@pytest.mark.parametrize("left", [0.3, 0.8, 0.999])
@pytest.mark.parametrize("kind", [None, "cls"])
def test_truncated_tar_files(left, kind, pictures, tmp_path):
    path = shards(tmp_path, pictures, size=12, kind=kind) / "part-000000.tar"
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset_data + tar.getmembers()[-1].size
    path.write_bytes(path.read_bytes()[: int(left * end)])
    with pytest.raises(UserError, match=r"part-000000\.tar is no tar file, or it is damaged"):
        open_reader(str(tmp_path))


def test_tar_files_that_are_damaged_or_have_no_end(pictures, tmp_path, caplog):
    path = shards(tmp_path, pictures, size=12) / "part-000000.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    place = members[6].offset
    path.write_bytes(whole[:place] + b"x" * 512 + whole[place + 512 :])
    with pytest.raises(UserError, match=f"at byte {place} there is neither a file nor the mark of the end"):
        open_reader(str(tmp_path))
    path.write_bytes(whole[:place])
    assert len(open_reader(str(tmp_path))) == 3
    assert "part-000000.tar has no mark at its end" in caplog.text
    path.write_bytes(whole[:200])
    with pytest.raises(UserError, match="truncated header"):
        open_reader(str(path))


def test_a_tar_file_that_shrinks_and_members_that_are_no_images(pictures, tmp_path):
    """They are counted and replaced, as files are."""
    files = {**pictures, "5.jpg": b"no image", "12.png": b""}
    path = write_tar(tmp_path / "images.tar", dict(sorted(files.items())))
    data = ImageDataset(open_reader(str(path)), train_transform((16, 16)), 4, 0, "RGB")
    names = [data.name(i).rsplit("/", 1)[1] for i in range(len(data))]
    unreadable = data[0, names.index("5.jpg")].unreadable
    assert unreadable[unreadable >= 0].tolist() == [names.index("5.jpg")]
    assert data[0, names.index("12.png")].unreadable[0] == names.index("12.png")
    path.write_bytes(path.read_bytes()[: 3 * 1024])
    (name,) = CorruptImages(data, 1.0).add({names.index("9.png")})
    assert name == f"{path}/9.png" and data[0, names.index("9.png")].unreadable[0] == names.index("9.png")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.TGZ"])
def test_compressed_tar_files(name, pictures, tmp_path, caplog):
    path = tmp_path / name
    path.write_bytes(gzip.compress(tar_of(pictures.items())))
    for given in (path, tmp_path):
        with pytest.raises(UserError, match=f"{name} is compressed by gzip, .*; decompress it"):
            open_reader(str(given))
    write_tar(tmp_path / "b.tar", pictures)
    if name != "a.tar":
        assert len(open_reader(str(tmp_path))) == 12 and f"{name} and others like it are not" in caplog.text
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"a\.zip is neither a folder of images or tar files nor a \.tar file"):
        open_reader(str(tmp_path / "a.zip"))


@pytest.mark.parametrize("size", [b"\xff" + b"\x80" * 11, b"\x80" + b"\xff" * 11])
@pytest.mark.parametrize("kind", [b"0", b"L", b"x"])
def test_absurd_numbers_in_headers(size, kind, pictures, tmp_path):
    """Negative or larger than any file, in a header with the right checksum."""
    content = bytearray(tar_of(pictures.items()))
    content[124:136], content[156:157], content[148:156] = size, kind, b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.tar is no tar file, or it is damaged"):
        open_reader(str(tmp_path / "a.tar"))


def test_a_tar_file_that_is_cut_within_another(pictures, tmp_path):
    inner = tar_of(pictures.items())
    (tmp_path / "a.tar").write_bytes(tar_of([("in.tar", inner[:700]), ("after.txt", b"x" * 10000)]))
    with pytest.raises(UserError, match=r"in/.*\.png ends behind the end of the tar file"):
        open_reader(str(tmp_path / "a.tar"))


def test_links_and_the_files_of_macos(pictures, tmp_path, caplog):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("./a/1.jpg", pictures["7.jpg"]), ("./a/._1.jpg", b"\0\5\x16\7")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, kind, target in (("b/2.jpg", tarfile.LNKTYPE, "./a/1.jpg"), ("b/3.jpg", tarfile.SYMTYPE, "1.jpg")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    reader = open_reader(str(tmp_path / "a.tar"))
    assert [reader.filename(i) for i in range(len(reader))] == ["a.tar/a/1.jpg", "a.tar/b/2.jpg"]
    assert all(reader[i][0].read() == pictures["7.jpg"] for i in range(2))
    assert "a.tar: 1 link(s) to images are left out" in caplog.text
