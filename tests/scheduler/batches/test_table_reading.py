"""Tables as spreadsheets and people write them: read as they are meant, or refused with a remedy that looks at the input."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.text import INVISIBLE, is_blank, remove_invisible, strip_invisible
from scheduler.batches.table.charset_guess import guess_charsets
from scheduler.batches.table.columns import column_name, near_misses
from scheduler.batches.table.file_names import sanitize
from scheduler.batches.table.options import BatchOptions
from scheduler.batches.table.prompt_hints import prompt_hints
from scheduler.batches.table.rows import Table
from scheduler.batches.table.table_reader import TableFile, is_json_name
from scheduler.batches.table.template import PromptTemplate

PLAIN = [{"sku": "A-1", "product": "red mug"}, {"sku": "A-2", "product": "blue mug"}]


def opened(data: str | bytes, name: str = "table.csv", header_charset: str | None = None, **options: Any) -> Table:
    file = io.BytesIO(data.encode() if isinstance(data, str) else data)
    said = BatchOptions(**options)
    return TableFile(file, 1000, is_json_name(name), header_charset).open(said.model_copy(), said)


def cells(data: str | bytes, name: str = "table.csv", **options: Any) -> list[dict[str, Any]]:
    rows = list(opened(data, name, **options).rows)
    assert not [error for row in rows for error in row.errors]
    return [row.cells for row in rows]


def refusal(data: str | bytes, name: str = "table.csv", **options: Any) -> FieldError:
    with pytest.raises(InvalidRequest) as caught:
        cells(data, name, **options)
    (error,) = caught.value.errors
    return error


READ: dict[str, tuple[str | bytes, list[dict[str, Any]]]] = {
    "two byte order marks": ("\ufeff\ufeffsku,product\r\nA-1,red mug\r\nA-2,blue mug\r\n", PLAIN),
    "a zero-width space before sku": ("\u200bsku,product\nA-1,red mug\nA-2,blue mug\n", PLAIN),
    "marks of direction and soft hyphens": (
        "sku\u200e,pro\u00adduct\n\u200fA-1\u202c,red mug\u2060\nA\u200b-2,blue mug\ufeff\n",
        PLAIN,
    ),
    "full-width letters": ("ＳＫＵ,product\nA-1,red mug\nA-2,blue mug\n", PLAIN),
    "short rows": ("sku,product,note\nA-1,red mug,\nA-2,blue mug\n", PLAIN),
    "nameless empty columns": ("sku,,product,,\nA-1,,red mug,,\nA-2,,blue mug\n", PLAIN),
    "a nameless column of invisible cells": ("sku,product,\nA-1,red mug,\u200b\nA-2,blue mug, \n", PLAIN),
    "an end mark of DOS": ("sku,product\r\nA-1,red mug\r\nA-2,blue mug\r\n\x1a", PLAIN),
    "an end mark behind the last cell": ("sku,product\nA-1,red mug\nA-2,blue mug\x1a\x1a", PLAIN),
    "ends of lines of old Macs": ("sku,product\rA-1,red mug\rA-2,blue mug\r", PLAIN),
    "bars": ("sku|product\nA-1|red mug\nA-2|blue mug\n", PLAIN),
    "Excel's Unicode text": ("sku\tproduct\r\nA-1\tred mug\r\nA-2\tblue mug\r\n".encode("utf-16"), PLAIN),
    "UTF-16 with its highest byte first": (b"\xfe\xff" + "sku,product\nA-1,red mug\nA-2,blue mug\n".encode("utf-16-be"), PLAIN),
    "UTF-16 without a mark": ("sku,product\nA-1,red mug\nA-2,blue mug\n".encode("utf-16-le"), PLAIN),
    "a line break in a name": ('sku;"product, long\nname"\nA-1;mug\n', [{"sku": "A-1", "product__long_name": "mug"}]),
    "a quote in a quoted name": ('"5"" mug, tall";sku\nred;A-1\n', [{"_5__mug__tall": "red", "sku": "A-1"}]),
    "a decomposed name": ("sku,gro\u0308ße\nA-1,large\n", [{"sku": "A-1", "größe": "large"}]),
    "a Hindi name": ("sku,रंग\nA-1,red\n", [{"sku": "A-1", "रंग": "red"}]),
    "a decomposed SKU": ("sku,product\ne\u0301-1,mug\n", [{"sku": "é-1", "product": "mug"}]),
    "a known name of two words": ("Negative Prompt,product\nblur,mug\n", [{"negative_prompt": "blur", "product": "mug"}]),
}


@pytest.mark.parametrize("name", READ)
def test_it_is_read_as_it_is_meant(name: str) -> None:
    data, rows = READ[name]
    assert cells(data) == rows


def test_a_list_in_a_file_of_json_lines() -> None:
    text = "[\n" + ",\n".join(json.dumps(row) for row in PLAIN) + "\n]\n"
    assert cells(text, "t.jsonl") == PLAIN
    assert cells(json.dumps(PLAIN, indent=4), "t.json") == PLAIN
    assert cells(json.dumps(PLAIN).encode("utf-16"), "t.json") == PLAIN
    assert cells("\ufeff" + "\n".join(json.dumps(row) for row in PLAIN) + "\n\x1a", "t.ndjson") == PLAIN
    many = [{"sku": str(number), "note": "x" * 50} for number in range(900)]
    assert cells(json.dumps(many, indent=1), "t.json") == many


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[{}", "does not end"),
        ('[{"a": 1}, {"a" 2}]', "not a JSON list"),
        ('[{"a": 1}]\n[{"a": 2}]', "goes on"),
        ('[{"a": "' + "x" * 1_100_000, "longer than|does not end|not a JSON list"),
        ('{\n "sku": "A-1"\n}\n', "over several lines"),
        ("sku,product\nA-1,mug\n", "does not begin like JSON"),
        ('[{"a": ' + "[" * 50_000, "not a JSON list"),
    ],
)
def test_json_that_is_no_table_is_one_error(text: str, says: str) -> None:
    error = refusal(text, "t.jsonl")
    assert any(part in error.detail for part in says.split("|"))
    assert error.remedy


@pytest.mark.parametrize(
    ("data", "says", "remedy"),
    [
        (b"PK\x03\x04" + b"\x00" * 26 + b"[Content_Types].xml", "Excel workbook", "CSV UTF-8"),
        (b"PK\x03\x04" + b"\x00" * 26 + b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet", "OpenDocument", "CSV UTF-8"),
        (b"PK\x03\x04" + b"\x00" * 26 + b"photo.png", "is a ZIP", "archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel workbook", "CSV UTF-8"),
        (b"\x1f\x8b\x08", "compressed", "unpack"),
        (b"<!DOCTYPE html><html>", "web page", "CSV UTF-8"),
        (b'[{"sku": "A-1"}]', "begins like JSON", ".jsonl"),
        ("sku，product\nA-1，mug\n".encode(), "separates cells|does not separate", "comma"),
        ("sku,product\nA-1,红色马克杯\n".encode("gbk"), "not utf-8", "charset=gb18030 if it is meant to read '红色马克杯'"),
        ("sku;product\nA-1;Größe mug\n".encode("cp1252"), "not utf-8", "charset=windows-1252 if it is meant to read 'Größe mug'"),
        (
            "sku,product\nA-1,żółty kubek\n".encode("cp1250"),
            "not utf-8",
            "charset=windows-1250 if it is meant to read 'żółty",
        ),
        ("sku,product\nA-1,красная кружка\n".encode("cp1251"), "not utf-8", "charset=windows-1251"),
        ("sku,product\nA-1,紅色馬克杯\n".encode("big5"), "not utf-8", "charset=big5 if it is meant to read '紅色馬克杯'"),
        ("sku,product\nA-1,赤いマグカップ\n".encode("cp932"), "not utf-8", "charset=shift_jis"),
        ("sku,product\nA-1,빨간 머그컵\n".encode("cp949"), "not utf-8", "charset=euc-kr"),
    ],
)
def test_a_remedy_looks_at_the_input(data: bytes, says: str, remedy: str) -> None:
    error = refusal(data)
    assert any(part in error.detail for part in says.split("|"))
    assert remedy in error.remedy


@pytest.mark.parametrize("charset", ["gbk", "GB2312", "gb18030", "cp936"])
def test_a_charset_may_have_any_of_its_names(charset: str) -> None:
    data = "sku,product\nA-1,红色马克杯\n".encode("gbk")
    assert cells(data, charset=charset) == [{"sku": "A-1", "product": "红色马克杯"}]
    assert cells(data, header_charset=charset) == [{"sku": "A-1", "product": "红色马克杯"}]


def test_a_byte_order_mark_decides() -> None:
    data = "\ufeffsku,product\nA-1,红色马克杯\n".encode()
    assert cells(data, charset="gb18030") == [{"sku": "A-1", "product": "红色马克杯"}]
    assert cells(data[3:].decode().encode("utf-16"), charset="latin-1") == [{"sku": "A-1", "product": "红色马克杯"}]


@pytest.mark.parametrize("charset", ["rot13", "utf-7", "unicode_escape", "idna", "base64", "none at all", "\x00"])
def test_what_is_no_charset_of_text_is_refused(charset: str) -> None:
    file = TableFile(io.BytesIO(b"sku\nA\n"), 10, is_json=False, charset=charset)
    with pytest.raises(InvalidRequest, match="charset"):
        file.open(BatchOptions(), BatchOptions())


def test_an_update_is_read_as_the_earlier_table_was() -> None:
    earlier = BatchOptions(charset="gb18030", delimiter=";", column_map={"Artikel": "sku"})

    def again(data: bytes) -> list[dict[str, Any]]:
        return [row.cells for row in TableFile(io.BytesIO(data), 100).open(earlier.model_copy(), BatchOptions()).rows]

    assert again("Artikel;product\nA-1;红色\n".encode("gbk")) == [{"sku": "A-1", "product": "红色"}]
    assert again("Artikel,product\nA-1,红色\n".encode()) == [{"sku": "A-1", "product": "红色"}]


def test_columns_that_are_almost_known_are_pointed_out() -> None:
    for name, known in {
        "ѕku": "sku",
        "skus": "sku",
        "Product SKU": "sku",
        "promt": "prompt",
        "widht": "width",
        "seeds": "seed",
    }.items():
        (hint,) = near_misses([column_name(name), "product"])
        assert f"{known!r}" in hint.detail
    assert near_misses(["sku", "skus", "color", "size", "material", "name", "brand", "description", "style", "title"]) == []


def test_short_rows_are_pointed_out_once() -> None:
    table = opened("sku,product,note\nA\nB\nC,mug,x\n")
    assert [row.cells for row in table.rows] == [{"sku": "A"}, {"sku": "B"}, {"sku": "C", "product": "mug", "note": "x"}]
    (hint,) = table.warnings
    assert hint.row == 1


def test_a_cell_without_a_column_spoils_its_row_alone() -> None:
    rows = list(opened("sku,,product\nA,,mug\nB,red,cup\n").rows)
    assert [bool(row.errors) for row in rows] == [False, True]
    assert "'red'" in rows[1].errors[0].detail


def test_whole_numbers_of_json_have_no_decimals() -> None:
    assert cells('{"sku": 17.0, "price": 2.5, "n": 1e3}', "t.jsonl") == [{"sku": 17, "price": 2.5, "n": 1000}]


def test_every_invisible_character_is_known() -> None:
    drawn = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)}
    formats = {code for code in range(0xE0000) if unicodedata.category(chr(code)) == "Cf"} - drawn
    assert formats == {code for code in range(0xE0000) if INVISIBLE.match(chr(code))}
    assert strip_invisible("\u200b 🏴\U000e0067\U000e0062\U000e007f \ufeff") == "🏴\U000e0067\U000e0062\U000e007f"
    assert remove_invisible("می\u200cخواهم\u200b") == "می\u200cخواهم"
    assert all(is_blank(text) for text in ("", " \u200b", "\ufeff\u2060", "\u3164", "\u2800\ufe0f", "\x07"))
    assert not any(is_blank(text) for text in ("a", "。", "🏴\U000e0067\U000e007f", "ก"))


def test_marks_stay_in_file_names() -> None:
    assert sanitize("กี-1") != sanitize("กู-1")
    assert sanitize("हिन्दी/कप") == "हिन्दी-कप"
    assert sanitize("A\u200b-1") == "A-1"


def test_a_template_names_columns_as_the_table_does() -> None:
    template = PromptTemplate("{{ gro\u0308ße }} {{ \u200bname|default('e\u0301') }} {{ ｓｋｕ }}")
    assert template.names == {"größe", "name", "sku"}
    assert template.render({"größe": "L", "sku": "A"}) == "L e\u0301 A"


@pytest.mark.parametrize("text", ["{red|blue}", "(mug:1.3)", "[mug:0.5]", "<lora:x:0.8>", "__animal__", "{color}", "${color}"])
def test_marks_of_other_programs_get_a_hint(text: str) -> None:
    assert len(prompt_hints("template", text, ["color"])) == 1


@pytest.mark.parametrize("text", ["{{ color|lower }}", "(scale 1:64)", "a (red) mug: 3 pieces", "{% if color %}x{% endif %}"])
def test_plain_templates_get_no_hint(text: str) -> None:
    assert prompt_hints("template", text, ["color"]) == []


WORDS = {
    "utf-8": "mug Größe 红色马克杯 빨강 กีสี रंग",
    "utf-16": "mug Größe 红色马克杯 빨강 กีสี रंग",
    "gb18030": "mug 红色马克杯 白色背景",
    "cp1252": "mug Größe émail café",
    "cp949": "mug 빨간 머그컵",
    "shift_jis": "mug 赤いマグカップ",
    "cp1251": "mug красная кружка",
}
MARKS = st.sampled_from(["", "\ufeff", "\ufeff\ufeff", "\u200b", "\u200e", "\u00ad"])


@given(
    data=st.data(),
    charset=st.sampled_from(sorted(WORDS)),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
    says_charset=st.booleans(),
)
def test_any_table_is_read_as_meant_or_refused_with_a_remedy(
    data: st.DataObject, charset: str, delimiter: str, quoting: Any, end: str, *, says_charset: bool
) -> None:
    words = st.sampled_from(WORDS[charset].split())
    texts = st.lists(words | st.sampled_from(["a, b", "a; b", 'a "b"', "a|b", "a\nb"]), min_size=1, max_size=3).map(" ".join)
    mark = data.draw(MARKS) if charset.startswith("utf") else ""
    names = data.draw(st.lists(words, max_size=3, unique_by=column_name))
    assume(not {column_name(name) for name in names} & {"sku"})
    columns = ["sku", *names]
    rows = data.draw(st.lists(st.lists(st.just("") | texts, min_size=len(names), max_size=len(names)), min_size=1, max_size=4))
    padding = data.draw(st.integers(0, 2))  # columns of a sheet that nobody used
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerow([f"{mark}{columns[0]}", *columns[1:], *[""] * padding])
    for number, row in enumerate(rows):
        while row and not row[-1] and data.draw(st.booleans()):
            row = row[:-1]  # noqa: PLW2901 - programs leave out empty cells at the end
        writer.writerow([f"A-{number}", *row])
    body = file.getvalue().encode(charset) + data.draw(st.sampled_from([b"", b"\x1a"]) if charset == "utf-8" else st.just(b""))
    meant = [
        {"sku": f"A-{number}"} | {column_name(n): cell for n, cell in zip(names, row, strict=False) if cell}
        for number, row in enumerate(rows)
    ]
    try:
        found = cells(body, charset=charset if says_charset else None)
    except InvalidRequest as error:
        (first,) = error.errors
        assert not says_charset
        assert not charset.startswith("utf")
        assert first.field == "table"
        if guesses := guess_charsets(body):
            assert guesses[0].charset in first.remedy
            assert any(word in first.remedy for word in WORDS[charset].split())
    else:
        ascii_only = body.isascii()
        assert says_charset or charset.startswith("utf") or ascii_only
        assert [{name: " ".join(str(cell).split()) for name, cell in row.items()} for row in found] == [
            {name: " ".join(cell.split()) for name, cell in row.items()} for row in meant
        ]
