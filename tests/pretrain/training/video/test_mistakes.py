"""What commands say to a mistake in their arguments for videos, or in the files."""

import pytest
from video_runs import arguments, knn_arguments, pretraining_arguments

from pretrain import finetune, knn
from pretrain.__main__ import main as pretrain_main

pytest.importorskip("av")


@pytest.mark.parametrize(
    ("main", "overrides", "message"),
    [
        (pretrain_main, dict(model="convmae_convvit_tiny_patch16"), "--num_frames is an option of video models"),
        (pretrain_main, dict(num_frames=5), "A clip of 5 frames is not made of time slots of 2 frames"),
        (pretrain_main, dict(num_frames=0), "--num_frames must be at least 1, got 0"),
        (pretrain_main, dict(mask_ratio=1.5), r"mask_ratio must be at least 0 and below 1, got 1\.5"),
        (pretrain_main, dict(in_chans=2), "can be read with 1 or 3 channels, not in_chans 2"),
        (pretrain_main, dict(data_path="nowhere"), "There is no data at nowhere"),
        (pretrain_main, dict(batch_size=64), "6 videos give no optimizer step"),
        (finetune.main, dict(cls_token="True"), "--cls_token is an option of image models"),
        (finetune.main, dict(aa="bogus"), "--aa bogus is not a RandAugment policy"),
        (finetune.main, dict(test_crops=0), "--test_crops must be at least 1, got 0"),
        (finetune.main, dict(val_split="test"), "There is no folder .*test and no list .*test.csv"),
    ],
)
def test_mistakes_get_one_clear_message(videos, tmp_path, main, overrides, message):
    flags = pretraining_arguments if main is pretrain_main else arguments
    with pytest.raises(SystemExit, match=message) as e:
        main(flags(videos, tmp_path / "out", **overrides))
    assert "\n" not in str(e.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"no video", b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 8])
def test_text_and_damage_named_mp4(tmp_path, content):
    for split in ("train", "val"):
        for i in range(3):
            (tmp_path / split / "a").mkdir(parents=True, exist_ok=True)
            (tmp_path / split / "a" / f"{i}.mp4").write_bytes(content)
    for main, flags in ((pretrain_main, pretraining_arguments), (knn.main, knn_arguments)):
        with pytest.raises(SystemExit, match=r"None of \d video\(s\) from .*mp4 on can be read: are these video") as e:
            main(flags(tmp_path, tmp_path / "out"))
        assert "\n" not in str(e.value)
