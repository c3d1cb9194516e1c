"""The pages: links lead somewhere, and the files, modules and tools they name exist."""

import re
from pathlib import Path

import pytest
from parity import REPO

PAGES = sorted(
    path.relative_to(REPO)
    for folder in ("", "docs", "pretrain", "datasets", "projects", "tests", ".github")
    for path in (REPO / folder).glob("**/*.md" if folder else "*.md")
)
PACKAGES = {
    "pretrain": "pretrain",
    "lazyrun": "projects/LazyRun/lazyrun",
    "convmae_det": "projects/ConvMAEDet/convmae_det",
    "mimdet": "projects/MIMDet/mimdet",
    "convmae_seg": "projects/ConvMAESeg/convmae_seg",
}
FILE = re.compile(r"(?:projects|pretrain|tools|tests|datasets|docs|\.github)/[\w./-]*[\w/]")
IN_PACKAGE = re.compile(rf"(?:{'|'.join(PACKAGES)})/[\w./-]*[\w/]")
MODULE = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+")
GENERATED = ("datasets/shapes",)
"""What a command of the pages makes."""


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Links of a page to files or headings that do not exist; other sites are not asked."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        if not linked.exists() or (anchor and anchor not in anchors(linked.read_text())):
            broken.append(target)
    return broken


def missing_names(page: Path) -> list[str]:
    """Files and modules that a page names in code or commands and that do not exist."""
    text = page.read_text()
    code = re.findall(r"`([^`\n]+)`", without_code(text)) + re.findall(r"^```.*?^```", text, re.DOTALL | re.MULTILINE)
    words = {word.strip("'\",;:()") for piece in code for word in piece.split()}
    missing = []
    for word in sorted(words):
        if FILE.fullmatch(word) or IN_PACKAGE.fullmatch(word):
            package, _, rest = word.partition("/")
            places = [REPO / word, REPO / PACKAGES.get(package, package) / rest]
            exists = any(place.exists() for place in places) or word.startswith(GENERATED)
        elif MODULE.fullmatch(word):
            exists = is_module_or_attribute(word)
        else:
            continue
        if not exists:
            missing.append(word)
    return missing


def is_module_or_attribute(name: str) -> bool:
    """Whether a dotted name leads to a module, or to something that a module's text mentions."""
    package, *parts = name.split(".")
    place = REPO / PACKAGES[package]
    while parts and ((place / parts[0]).is_dir() or (place / f"{parts[0]}.py").is_file()):
        place = place / parts.pop(0)
    if not parts:
        return True
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return re.search(rf"\b{parts[0]}\b", file.read_text()) is not None


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    assert broken_links(REPO / page) == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_named_files_and_modules_exist(page):
    assert missing_names(REPO / page) == []


def test_faults_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A page: its title\n[here](#a-page-its-title) [there](#b) [gone](other.md) <https://x.org/>\n"
        "`pretrain.visible` `pretrain.models.build_model` `pretrain/visible.py` `lazyrun/config/task.py`\n"
        "```\n# no heading\npython tools/gone.py x=1\n```\n"
    )
    assert broken_links(page) == ["#b", "other.md"]
    assert missing_names(page) == ["pretrain.visible", "pretrain/visible.py", "tools/gone.py"]


@pytest.mark.parametrize(
    "page", ["DETECTION.md", "SEGMENTATION.md", "pretrain/README.md", "docs/speed.md", "docs/video.md"]
)
def test_figures_are_marked(page):
    text = (REPO / page).read_text().lower()
    assert "*ours*" in text and "*published*" in text
