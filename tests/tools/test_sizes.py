"""Files, functions and folders that grow over their limit are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.sizes import FILES, FOLDERS, FUNCTIONS, Limit, faults, function_sizes, main, measure, percentile_90


def test_a_function_counts_from_def_to_its_last_line() -> None:
    source = """
@cached
def first():
    return 1

class A:
    async def second(self):
        return (
            2
        )
"""
    assert function_sizes(Path("a.py"), source) == [(2, "a.py:3: first"), (4, "a.py:7: second")]


@pytest.mark.parametrize("limit", [FILES, FUNCTIONS, FOLDERS])
def test_one_over_the_limit_is_named(limit: Limit) -> None:
    assert faults(limit, [(limit.longest, "fits"), *[(1, "small")] * 20]) == []
    [line] = faults(limit, [(limit.longest + 1, "place"), *[(1, "small")] * 20])
    assert line == f"place: {limit.longest + 1}, at most {limit.longest}"


def test_nine_of_ten_are_measured_too() -> None:
    assert percentile_90([(size, "") for size in range(1, 11)]) == 10
    [line] = faults(FUNCTIONS, [(21, "longish")] * 10)
    assert "nine of ten" in line


def test_it_measures_files_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "long.py"
    page.write_text("\n" * 451)
    assert measure([page])[FILES] == [(451, str(page))]
    assert measure([page])[FOLDERS] == [(1, str(tmp_path))]
    monkeypatch.setattr("tools.sizes.python_files", lambda: [page, Path(__file__)])
    assert main([]) == 1
    assert f"{page}: 451, at most 450" in capsys.readouterr().err
