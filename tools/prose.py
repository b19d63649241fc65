"""Find words of the word list (tools/prose_rules.py) in docs, comments, docstrings, page texts and errors.

    python -m tools.prose                    every finding as path:line, and exit code 1 if there is one
    python -m tools.prose --count            findings by folder
    python -m tools.prose README.md docs     in these files and folders only

In a Python file only comments and strings are searched; in other files every line. A sentence may run over several lines. A line
with the marker `prose: ok` is skipped.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.prose_rules import RULES

MARKER = "prose: ok"
READ = {".py", ".md", ".html", ".txt", ".js", ".css", ".toml", ".po", ".yaml", ".yml", ".mako", ".sh", ""}
"""Endings of the files that are searched; the empty one is for Makefile, Dockerfile and .ci/run."""
LEFT_OUT = re.compile(
    r"^(?:(?:packages/client/)?LICENSE|models/|api/static/vendor/|tools/prose(?:_rules)?\.py|tests/tools/test_prose\.py)|\.min\."
)
"""Third-party text, and the word list itself."""
DECORATION = re.compile(r"^\s*(?:#|//|\*|>|-|\|)+\s?")
"""Marks at the start of a line of a comment, a list or a quotation."""


@dataclass(frozen=True)
class Finding:
    path: Path
    line: int
    words: str
    instead: str

    def __str__(self) -> str:
        return f'{self.path}:{self.line}: "{self.words}": write {self.instead}'


Line = tuple[int, str]
"""(line number, text)."""


def blocks_of_text(source: str) -> Iterator[list[Line]]:
    """Paragraphs: lines up to an empty one."""
    block: list[Line] = []
    for number, text in enumerate(source.splitlines(), 1):
        if text.strip():
            block.append((number, text))
        elif block:
            yield block
            block = []
    if block:
        yield block


def blocks_of_python(source: str) -> Iterator[list[Line]]:
    """Consecutive comments, and consecutive strings, as Python joins them."""
    block: list[Line] = []
    kind = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NL, tokenize.INDENT, tokenize.DEDENT) or (
            token.type == tokenize.NEWLINE and kind == tokenize.COMMENT
        ):
            continue
        if block and token.type != kind:
            yield block
            block = []
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            block += enumerate(token.string.splitlines(), token.start[0])
        kind = token.type
    if block:
        yield block


def findings_in_block(path: Path, block: list[Line]) -> Iterator[Finding]:
    """Search a block as one text; a finding is on the line where its words begin."""
    text, starts = "", []
    for number, line in block:
        starts.append((len(text), number))
        text += " ".join(DECORATION.sub("", line).strip().strip("\"'`").split()) + " "
    for rule in RULES:
        for match in rule.pattern.finditer(text):
            _, number = max(start for start in starts if start[0] <= match.start())
            yield Finding(path, number, match.group().strip(" ,.;:("), rule.instead)


def findings(path: Path) -> list[Finding]:
    """All findings in one file, by line."""
    source = path.read_text("utf-8")
    blocks = blocks_of_python(source) if path.suffix == ".py" else blocks_of_text(source)
    excepted = {number for number, line in enumerate(source.splitlines(), 1) if MARKER in line}
    found = {one for block in blocks for one in findings_in_block(path, block) if one.line not in excepted}
    return sorted(found, key=lambda one: (one.line, one.words))


def files(chosen: Sequence[str]) -> list[Path]:
    """The project's text files, as git knows them; those under `chosen` if there are any."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *chosen]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [path for path in map(Path, listed) if path.suffix in READ and path.is_file() and not LEFT_OUT.search(str(path))]


def folder(path: Path) -> str:
    """The package or folder under which a file's findings are counted."""
    return "/".join(path.parts[:-1][:2]) or str(path)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", help="files and folders; all of the project's if none is given")
    parser.add_argument("--count", action="store_true", help="count the findings by folder")
    parser.add_argument("--by-rule", action="store_true", help="count the findings by the advice")
    chosen = parser.parse_args(arguments)
    found = [one for path in files(chosen.paths) for one in findings(path)]
    if chosen.count or chosen.by_rule:
        counted = Counter(one.instead if chosen.by_rule else folder(one.path) for one in found)
        for name, number in sorted(counted.items(), key=lambda item: -item[1]):
            print(f"{number:6}  {name}")
    else:
        for one in found:
            print(one)
    print(f"{len(found)} findings" if found else "no findings", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
