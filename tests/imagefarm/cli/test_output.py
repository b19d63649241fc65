"""What the command line writes is what there is: nothing cut off, nothing read as markup, no control characters."""

from __future__ import annotations

import pytest

from imagefarm.cli.output import print_error, print_table
from imagefarm.errors import FieldError, InvalidRequest

IMAGE = "img_01M7YMNSP6E8AEGYH97SZWT9Z3"
PROMPT = "[red]a mug[/red] :smile: " + "and more " * 40


def test_a_table_in_a_pipe_has_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("image", "prompt", "seed"), [(IMAGE, PROMPT.strip(), 7), (None, "杯子\x1b[2J\n", 8)])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["image", "prompt", "seed"]
    assert IMAGE in first
    assert PROMPT.strip() in first
    assert "\x1b" not in second
    assert second.split() == ["杯子", "[2J", "8"]


def test_a_refusal_names_rows_fields_and_remedies_on_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    errors = [
        FieldError(field="steps", detail="1000 is more than 50", remedy="use 8"),
        FieldError(field="size", detail="is\x07odd", row=3),
    ]
    print_error(InvalidRequest(errors))
    assert capsys.readouterr().err.splitlines() == [
        "imagefarm: steps: 1000 is more than 50",
        "  steps: 1000 is more than 50; use 8",
        "  row 3, size: is odd",
    ]
