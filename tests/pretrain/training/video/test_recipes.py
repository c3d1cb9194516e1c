"""Published recipes of videos."""

from pretrain.training.args import parse_args
from pretrain.training.classification_args import parse_finetune_args, parse_knn_args


def test_recipes():
    k400 = parse_args(["--model=videoconvmae_convvit_base_patch16", "--data_path=x", "--output_dir=y"])
    assert (k400.mask_ratio, k400.frame_step, k400.flip, k400.blr) == (0.9, 4, True, 1.5e-4)
    flags = ["--model=videoconvvit_base_patch16", "--data_path=x", "--output_dir=y", "--recipe=ssv2"]
    ssv2 = parse_finetune_args([*flags, "--batch_size=8"])
    assert (ssv2.sampling, ssv2.flip, ssv2.test_clips, ssv2.layer_decay) == ("segments", False, 2, 0.75)
    assert (ssv2.blr, ssv2.epochs, ssv2.batch_size, ssv2.aa) == (5e-4, 50, 8, "rand-m7-n4-mstd0.5-inc1")
    assert parse_knn_args(flags).num_frames == 16
    assert not hasattr(parse_args(["--model=convmae_convvit_base_patch16", "--data_path=x", "--output_dir=y"]), "flip")
