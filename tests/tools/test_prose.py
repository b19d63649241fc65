"""The word list finds the project's old dialect where people read it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.prose import Finding, findings, folder, main


def found(path: Path, text: str) -> list[tuple[int, str]]:
    path.write_text(text, "utf-8")
    return [(one.line, one.words.lower()) for one in findings(path)]


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("The page is drawn anew.", "anew"),
        ("Mends the row.", "mends"),
        ("What shall the picture show?", "shall"),
        ("It waits until it is let go.", "let go"),
        ("The worker is told of it.", "told"),
        ("As so many pictures as fit.", "so many"),
        ("Who joins a full set waits.", "who joins"),
        ("It decodes first, so that who joins does not wait.", "that who joins"),
        ("A key for whoever asks.", "whoever"),
        ("What waits for the decoder takes no place.", "what waits"),
        ("The same while nothing renders.", "the same while"),
        ("is no time that an old key may hold", "is no time that"),
        ("nothing has such a name", "nothing has"),
        ("The user signs in no more.", "no more"),
        ("The desk shows it.", "the desk"),
        ("half 3.9 s, 95 % 9.1 s", "half 3.9 s"),
    ],
)
def test_dialect_is_found(tmp_path: Path, sentence: str, words: str) -> None:
    assert words in [one for _, one in found(tmp_path / "page.md", sentence)]


@pytest.mark.parametrize(
    "sentence",
    [
        "Between steps the engine decodes at most one sixth of a full running set.",
        "A row is committed only after its file is complete.",
        "There is no lease to renew. The lease is no longer valid, and no more than two are left.",
        "What is a lane? Who renders a job?",
        "A user who signs in sees the page.",
        "模型未安装",
    ],
)
def test_plain_sentences_pass(tmp_path: Path, sentence: str) -> None:
    assert found(tmp_path / "page.md", sentence) == []


def test_python_is_read_for_its_comments_and_strings(tmp_path: Path) -> None:
    source = '''"""Renders it
anew."""

told = shall(mend)  # told
raise ValueError("name is no "
                 "file")
'''
    assert found(tmp_path / "a.py", source) == [(2, "anew"), (4, "told"), (5, "is no file")]


def test_a_sentence_may_run_over_lines_of_comments(tmp_path: Path) -> None:
    assert found(tmp_path / "a.py", "# it is so\n# many\n") == [(1, "so many")]
    assert found(tmp_path / "a.toml", "# it is so\n\n# many\n") == []


def test_a_marked_line_is_left_out(tmp_path: Path) -> None:
    assert found(tmp_path / "a.py", 'TITLE = "A told tale"  # prose: ok\n') == []
    assert found(tmp_path / "a.html", "{# prose: ok #} told\ntold") == [(2, "told")]


def test_it_fails_and_names_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("Drawn anew.\n")
    monkeypatch.setattr("tools.prose.files", lambda chosen: [page])
    assert main([]) == 1
    assert capsys.readouterr().out == f"{Finding(page, 1, 'anew', 'again')}\n"
    page.write_text("Drawn again.\n")
    assert main([]) == 0


def test_findings_are_counted_by_package() -> None:
    assert [folder(Path(path)) for path in ("worker/engine/a.py", "api/v1/jobs/a.py", "README.md")] == [
        "worker/engine",
        "api/v1",
        "README.md",
    ]
