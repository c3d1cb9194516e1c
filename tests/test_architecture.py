"""Who may import whom: the arrows point one way, tools -> projects -> lazyrun -> pretrain.common, and within a package
no two parts need each other."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from parity import REPO

PACKAGES = {
    "pretrain": REPO / "pretrain",
    "lazyrun": REPO / "projects/LazyRun/lazyrun",
    "convmae_det": REPO / "projects/ConvMAEDet/convmae_det",
    "mimdet": REPO / "projects/MIMDet/mimdet",
    "convmae_seg": REPO / "projects/ConvMAESeg/convmae_seg",
}
PROJECTS = ("lazyrun", "convmae_det", "mimdet", "convmae_seg")
FORBIDDEN = {
    "pretrain": {"detectron2", *PROJECTS},
    "lazyrun": {"convmae_det", "mimdet", "convmae_seg"},
    "convmae_det": {"mimdet", "convmae_seg"},
    "mimdet": {"convmae_seg"},
    "convmae_seg": {"mimdet"},
}
"""What a package must not import, whatever else it needs."""

MODEL_WORDS = ("convmae", "convvit", "mimdet", "sample_ratio", "upernet", "fastconvmae")
"""The general machinery must know none of these: neither class, module nor attribute."""


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, inside functions too, with the line; relative imports are not used here."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def violations(package: str, folder: Path) -> list[str]:
    """Imports of a package's files that :data:`FORBIDDEN` or the rule on `pretrain.common` refuse."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        for name, line in imports_of(path):
            refused = name.split(".")[0] in FORBIDDEN[package]
            if package == "lazyrun" and name.startswith("pretrain"):
                refused |= not name.startswith("pretrain.common.")
            if refused:
                found.append(f"{path.relative_to(folder)}:{line} imports {name}")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_point_one_way(package):
    assert violations(package, PACKAGES[package]) == []


def test_a_wrong_import_is_found(tmp_path):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "run.py").write_text("def f():\n    from convmae_det.backbone import ConvViT\n")
    (tmp_path / "weights.py").write_text("from pretrain.checkpoints import convert\nimport pretrain.common.files\n")
    assert violations("lazyrun", tmp_path) == [
        "engine/run.py:2 imports convmae_det.backbone.ConvViT",
        "weights.py:1 imports pretrain.checkpoints.convert",
    ]


def part_of(module: str, package: str) -> str | None:
    """The subpackage, or the module right in the package, that a dotted name lies in; None for another package's."""
    names = module.split(".")
    if names[0] != package or len(names) < 2:
        return None
    return names[1] if (PACKAGES[package] / names[1]).is_dir() or is_module(package, names[1]) else "__init__"


def is_module(package: str, name: str) -> bool:
    return (PACKAGES[package] / f"{name}.py").is_file()


def cycle_in(edges: dict[str, set[str]]) -> list[str] | None:
    """Parts that need each other in a circle, or None."""
    done: set[str] = set()

    def visit(part: str, path: list[str]) -> list[str] | None:
        if part in path:
            return path[path.index(part) :]
        if part in done:
            return None
        for other in sorted(edges.get(part, ())):
            if found := visit(other, [*path, part]):
                return found
        done.add(part)
        return None

    return next((found for part in sorted(edges) if (found := visit(part, []))), None)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_two_parts_need_each_other(package):
    edges: dict[str, set[str]] = {}
    for path in PACKAGES[package].rglob("*.py"):
        own = path.relative_to(PACKAGES[package]).parts[0].removesuffix(".py")
        for name, _ in imports_of(path):
            other = part_of(name, package)
            if other is not None and other != own:
                edges.setdefault(own, set()).add(other)
    assert edges or package == "mimdet"
    assert cycle_in(edges) is None


def test_a_cycle_is_found():
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert cycle_in({"a": {"b", "c"}, "b": {"c"}}) is None


def test_the_engine_knows_no_model_by_name():
    """Names, attributes and strings of the code; docstrings may give examples."""
    found = []
    for path in PACKAGES["lazyrun"].rglob("*.py"):
        tree = ast.parse(path.read_text())
        texts = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
        for node in ast.walk(tree):
            words = [getattr(node, key, None) for key in ("id", "attr", "name", "arg")]
            if isinstance(node, ast.Constant) and id(node) not in texts:
                words.append(node.value)
            said = [w for w in words if isinstance(w, str) and any(m in w.lower() for m in MODEL_WORDS)]
            found += [f"{path.name}:{node.lineno} {word}" for word in said if word != "convmae-det"]
    assert found == []


HEAVY = ("matplotlib", "cv2", "lazyrun.inference", "lazyrun.viz")


BACKBONES = (
    "from convmae_det import ConvViT, ConvViTFPN, get_vit_lr_decay_rate",
    "from mimdet import MIMDetBackbone, BenchmarkingViT",
    "from convmae_seg import ConvViTSeg, Segmentor",
)


def test_importing_a_backbone_is_light():
    """Compared with what detectron2's own backbones bring along."""
    code = "\n".join(
        [
            "import sys; import detectron2.modeling, detectron2.data; before = set(sys.modules)",
            *BACKBONES,
            "print(*sorted(set(sys.modules) - before))",
        ]
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in run.stdout.split() if name.startswith(HEAVY)] == []


def test_pretraining_needs_no_detectron2():
    """Nor PyAV, unless it decodes videos."""
    code = (
        "import sys; sys.modules['detectron2'] = sys.modules['av'] = None\n"
        "import pretrain, pretrain.__main__, pretrain.finetune, pretrain.linprobe, pretrain.knn, pretrain.visualize\n"
        "import pretrain.video, pretrain.checkpoints.convert"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
