"""Checks of HTML pages."""

import re
from html.parser import HTMLParser

EMPTY = {"meta", "img", "br", "source", "hr", "input", "link"}


class _Structure(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


def check_page(page: str) -> tuple[list[str], str]:
    """Asserts that tags are closed in order and that the page needs no other file; gives its tags and its text."""
    structure = _Structure()
    structure.feed(page)
    structure.close()
    assert structure.open == []
    assert not re.search(r'(src|href|srcset)="(?!data:)', page) and "@import" not in page and "url(" not in page
    return structure.seen, "".join(structure.text)
