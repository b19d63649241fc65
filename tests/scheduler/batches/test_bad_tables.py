"""Clumsy and hostile tables: each is refused with a problem that names field, row and remedy, and nothing is stored."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import func, select

from imagefarm.store.models import Batch, Job
from tests.scheduler.batches.conftest import BATCHES, CSV, JSON_LINES, BulkFarm


@dataclass
class Bad:
    """A submission, the field that its problem names, a part of what it says, and the row if there is one."""

    says: str
    table: str | bytes = "sku,name\nA,mug\n"
    names: str = "table"
    row: int | None = None
    media: str = CSV
    query: dict[str, Any] = field(default_factory=dict)
    status: int = 422


T = {"template": "a {{ name }}"}
GOOD = {"name": "x", "template": "{{ a }}", "rows": [{"a": "mug"}]}


def body(**changes: Any) -> str:
    return json.dumps(GOOD | changes)


def lines(*rows: Any) -> str:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)


BAD: dict[str, Bad] = {
    # the table as a whole
    "nothing at all": Bad("is empty", ""),
    "only a header": Bad("no rows", "sku,name\n", "rows", query=T),
    "only empty lines": Bad("no rows", "sku,name\n,\n\n", "rows", query=T),
    "a blank column name": Bad("column 2 has no name", "sku, ,name\nA,red,mug\n", row=1, query=T),
    "a trailing comma in the header": Bad("has 3 cells where the header has 2", "sku,name,\nA,mug,red\n", row=1, query=T),
    "a column twice": Bad("two columns are called", "sku,name,name\nA,b,c\n", query=T),
    "a column twice in other letters": Bad("two columns are called", "SKU,sku,name\nA,b,c\n", query=T),
    "two separators": Bad("semicolon", "sku;name,color\nA;b,c\n", "delimiter", query=T),
    "an odd separator": Bad("not known", names="delimiter", query=T | {"delimiter": "!"}),
    "the wrong separator": Bad("no column 'name'", names="template", table="sku;name\nA;mug\n", query=T | {"delimiter": ","}),
    "not UTF-8": Bad("is not utf-8", "sku,name\nA,Ã¼".encode("latin-1") + b"\xff\n", query=T),
    "half a letter of UTF-16": Bad("is not utf-16", "sku,name\nA,mug\n".encode("utf-16")[:-1], query=T),
    "an unknown charset": Bad("not known", names="charset", query=T | {"charset": "ebcdic"}),
    "a wrong charset": Bad("is not utf-16", b"sku,name\nA,mug\nB", query=T | {"charset": "utf-16"}),
    "a picture for a table": Bad("is a PNG picture", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), query=T),
    "an open quote": Bad("cannot be read as CSV", 'sku,name\nA,"mug\nB,cup\n', query=T),
    "a stray quote": Bad("cannot be read as CSV", 'sku,name\nA,"mug"s\n', query=T, row=1),
    "an endless quote": Bad("field larger", 'sku,name\nA,"' + "x\n" * 200_000, query=T),
    "an endless line": Bad("longer than", "sku,name\nA," + "x" * 1_100_000 + "\n", query=T),
    "a cell of 10 MB": Bad("longer than", "sku,name\nA," + "x" * 10_000_000 + "\n", query=T),
    "a quoted cell of 10 MB over many lines": Bad(
        "field larger", 'sku,name\nA,"' + ("x" * 1000 + "\n") * 10_000 + '"\n', query=T
    ),
    "an endless header": Bad("longer than", "x" * 1_100_000, query=T),
    "too many columns": Bad("has 300 columns", ",".join(f"c{n}" for n in range(300)) + "\n", query=T),
    "a long column name": Bad("longer than 64", "sku," + "n" * 65 + "\nA,b\n", query=T),
    "a NUL in the text": Bad("NUL", "sku,name\nA,mu\x00g\n", "prompt", 1, query=T),
    "neither template nor prompt": Bad("neither a template nor a column", names="template"),
    # rows
    "a cell too many": Bad("has 3 cells where the header has 2", "sku,name\nA,mug,red\n", row=1, query=T),
    "a cell too few": Bad("'name' has no value", "sku,name\nA,mug\nB\n", "template", 2, query=T),
    "a huge cell": Bad("has 70000 characters", "sku,name\nA," + "x" * 70_000 + "\n", "name", 1, query=T),
    "a prompt without end": Bad("gets longer|longer than|at most", "sku,name\nA," + "x" * 20_000 + "\n", "template", 1, query=T),
    "a prompt a little too long": Bad("at most 4000", "prompt\n" + "x" * 4001 + "\n", "prompt", 1),
    "an empty prompt": Bad("empty", "prompt,sku\n,A\n", "prompt", 1),
    "an empty cell that is used": Bad("'name' has no value", "sku,name\nA,\n", "template", 1, query=T),
    "a SKU twice": Bad("taken by row 1", "sku,name\nA,mug\nB,cup\nA,bowl\n", "name_pattern", 3, query=T),
    "a SKU twice in other letters": Bad("taken by row 1", "sku,name\nab,mug\nAB,cup\n", "name_pattern", 2, query=T),
    "names that meet by their number": Bad(
        "taken by row 1",
        "sku,name,count\nA1,mug,1\nA,cup,11\n",
        "name_pattern",
        2,
        query=T | {"name_pattern": "{sku}{n}"},
    ),
    "a custom id twice": Bad("taken by row 1", "custom_id,prompt\nx,mug\nx,cup\n", "name_pattern", 2),
    "a size the model has not": Bad("outside", "prompt,width\nmug,4096\n", "width", 1),
    "a size with a decimal comma": Bad("valid integer", 'prompt,width\nmug,"64,5"\n', "width", 1),
    "a negative seed": Bad("whole number", "prompt,seed\nmug,-1\n", "seed", 1),
    "a seed of 65 bits": Bad("less than or equal", "prompt,seed\nmug,18446744073709551616\n", "seed", 1),
    "guidance that is not a number": Bad("finite", "prompt,guidance\nmug,NaN\n", "guidance", 1),
    "a model nobody knows": Bad("no model", "prompt,model\nmug,dall-e\n", "model", 1),
    "too many of one": Bad("more than 16", "prompt,count\nmug,64\n", "count", 1),
    "another's picture": Bad("asset", "prompt,init_image\nmug,../../etc/passwd\n", "init_image", 1),
    "a long label": Bad("256", "prompt,note\nmug," + "x" * 300 + "\n", "labels.note", 1, query={"labels": "note"}),
    "a long custom id": Bad("128", "prompt,custom_id\nmug," + "x" * 129 + "\n", "custom_id", 1),
    # options
    "an unknown parameter": Bad("known", names="tempalte", query={"tempalte": "x"}),
    "an unknown format": Bad("'png', 'jpeg' or 'webp'", names="format", query=T | {"format": "gif"}),
    "a subject that is not JSON": Bad("", names="subject", query=T | {"subject": "{shadow"}),
    "a subject nested deep": Bad("", names="subject", query=T | {"subject": "[" * 900 + "]" * 900}),
    "a subject that is a list": Bad("is not an object", names="defaults.subject", query=T | {"subject": "[1]"}),
    "a subject of an asset nobody has": Bad("no asset", names="subject", row=1, query=T | {"subject": '{"image": "a"}'}),
    "an unknown seeds policy": Bad("known", names="seeds", query=T | {"seeds": "lucky"}),
    "a fixed seed without one": Bad("needs a seed", names="seeds", query=T | {"seeds": "fixed"}),
    "seeds of SKUs without SKUs": Bad("needs a column sku", "name\nmug\n", "seeds", query=T | {"seeds": "sku"}),
    "a label that is not a column": Bad("no column 'size'", names="labels", query=T | {"labels": "size"}),
    "a default model nobody knows": Bad("no model", names="model", query=T | {"model": "dall-e"}),
    "variants that are not JSON": Bad("Expecting|property name", names="variants", query=T | {"variants": "{view}"}),
    "variants that are a list": Bad("object|dict", names="variants", query=T | {"variants": "[1]"}),
    "a variant without values": Bad("at least 1", names="variants.view", query=T | {"variants": '{"view": []}'}),
    "a variant twice": Bad("twice", names="variants", query=T | {"variants": '{"view": ["a", "a"]}'}),
    "too many combinations": Bad(
        "combinations",
        names="variants",
        query=T | {"variants": json.dumps({name: [str(n) for n in range(40)] for name in ("a", "b")})},
    ),
    "a variant that is a column": Bad("is a column as well", names="variants", query=T | {"variants": '{"name": ["x"]}'}),
    "a variant with an odd name": Bad("cannot be", names="variants", query=T | {"variants": '{"prompt": ["x"]}'}),
    "a canary without end": Bad("1000", names="canary", query=T | {"canary": 100_000}),
    # name patterns
    "a path in the pattern": Bad("characters", names="name_pattern", query=T | {"name_pattern": "../{sku}"}),
    "an absolute path": Bad("characters", names="name_pattern", query=T | {"name_pattern": "/etc/{sku}"}),
    "a Windows path": Bad("characters", names="name_pattern", query=T | {"name_pattern": "C:\\{sku}"}),
    "a hidden file": Bad("characters", names="name_pattern", query=T | {"name_pattern": ".{sku}"}),
    "a format's attribute": Bad("not a field", names="name_pattern", query=T | {"name_pattern": "{sku.__class__}"}),
    "a format's index": Bad("not a field", names="name_pattern", query=T | {"name_pattern": "{0}"}),
    "a format's width": Bad("not a field", names="name_pattern", query=T | {"name_pattern": "{sku:>99999999}"}),
    "an open brace": Bad("brace", names="name_pattern", query=T | {"name_pattern": "{sku"}),
    "an unknown field": Bad("no column 'view'", names="name_pattern", query=T | {"name_pattern": "{sku}-{view}"}),
    "one name for all": Bad("taken by row 1", "sku,name\nA,x\nB,y\n", "name_pattern", 2, query=T | {"name_pattern": "same"}),
    "a SKU of dots": Bad("no character", "sku,name\n../..,mug\n", "name_pattern", 1, query=T),
    "a name of 1000 bytes": Bad("longer than", "sku,name\n" + "é" * 150 + ",mug\n", "name_pattern", 1, query=T),
    # templates
    "an unknown column": Bad("no column 'colour'", names="template", query={"template": "{{ colour }}"}),
    "a template's class": Bad("Getattr is not allowed", names="template", query={"template": "{{ ''.__class__ }}"}),
    "a template's index": Bad("Getitem is not allowed", names="template", query={"template": "{{ name['__class__'] }}"}),
    "a call": Bad("Call is not allowed", names="template", query={"template": "{{ name() }}"}),
    "a global": Bad("Call is not allowed|no column", names="template", query={"template": "{{ range(9) }}"}),
    "a loop": Bad("For is not allowed", names="template", query={"template": "{% for x in name %}{{ x }}{% endfor %}"}),
    "a loop of loops": Bad(
        "is not allowed",
        names="template",
        query={"template": "{% for a in range(9999999) %}{% for b in range(9999999) %}x{% endfor %}{% endfor %}"},
    ),
    "a product": Bad("Mul is not allowed", names="template", query={"template": "{{ 'a' * 999999999 }}"}),
    "a power": Bad("Pow is not allowed", names="template", query={"template": "{{ 9 ** 9 ** 9 ** 9 }}"}),
    "an assignment": Bad("is not allowed", names="template", query={"template": "{% set x = 1 %}{{ x }}"}),
    "a macro": Bad("is not allowed", names="template", query={"template": "{% macro m() %}{% endmacro %}"}),
    "a file": Bad("is not allowed", names="template", query={"template": "{% include '/etc/passwd' %}"}),
    "an import": Bad("is not allowed", names="template", query={"template": "{% import 'os' as os %}"}),
    "an unknown filter": Bad("no filter 'attr'", names="template", query={"template": "{{ name|attr('__class__') }}"}),
    "a filter that pads": Bad("no filter 'center'", names="template", query={"template": "{{ name|center(999999999) }}"}),
    "a filter that repeats": Bad(
        "more than|replace",
        "sku,name\nA," + "a" * 100 + "\n",
        "template",
        1,
        query={"template": "{{ name" + ("|replace('a', '" + "a" * 100 + "')") * 20 + " }}"},
    ),
    "a test that calls": Bad("no test", names="template", query={"template": "{% if name is callable %}x{% endif %}"}),
    "a broken template": Bad("unexpected|expected", names="template", query={"template": "{{ name "}),
    "a template nested deep": Bad(
        "deep|parts", names="template", query={"template": "{{ " + "(" * 900 + "name" + ")" * 900 + " }}"}
    ),
    "a template of ifs": Bad(
        "deep|parts|nested", names="template", query={"template": "{% if name %}" * 150 + "x" + "{% endif %}" * 150}
    ),
    "a template of many parts": Bad("parts", names="template", query={"template": "{{ name }}" * 500}),
    "a template of filters": Bad("deep", names="template", query={"template": "{{ name" + "|upper" * 390 + " }}"}),
    "a long template": Bad("8000|longer", names="template", query={"template": "x" * 8001}),
    # JSON Lines
    "a line that is not JSON": Bad("not a JSON object", lines({"name": "mug"}, "{name: cup}"), "table", 2, JSON_LINES, T),
    "a line that is a list": Bad("is int", lines([1, 2]), "table", 1, JSON_LINES, T),
    "a line with NaN": Bad("NaN", '{"name": NaN}', "table", 1, JSON_LINES, T),
    "a line nested deep": Bad(
        "not a JSON object|nested", '{"name":' + "[" * 100_000 + "]" * 100_000 + "}", "table", 1, JSON_LINES, T
    ),
    "a field twice": Bad("twice", '{"name": "a", "name": "b"}', "table", 1, JSON_LINES, T),
    "a field twice in other letters": Bad("twice", '{"sku": "a", "SKU": "b"}', "sku", 1, JSON_LINES, T),
    "a lone surrogate": Bad("surrogate", '{"name": "\\ud800"}', "name", 1, JSON_LINES, T),
    "a NUL in JSON": Bad("NUL", '{"name": "\\u0000"}', "name", 1, JSON_LINES, T),
    "a number of 5000 digits": Bad("not a JSON object|digits", '{"seed": ' + "9" * 5000 + "}", "table", 1, JSON_LINES, T),
    "an object in a cell": Bad("object or a list", lines({"name": {"a": 1}}), "name", 1, JSON_LINES, T),
    "true for a number": Bad("true or false", lines({"name": "a", "steps": True}), "steps", 1, JSON_LINES, T),
    "an unknown column in JSON": Bad("'name' has no value", lines({"title": "a"}), "template", 1, JSON_LINES, T),
    "an endless JSON line": Bad("longer than", '{"name": "' + "x" * 1_100_000, "table", None, JSON_LINES, T),
    # JSON
    "no rows in JSON": Bad("missing|Field required", json.dumps({"template": "x"}), "rows", None, "application/json"),
    "an empty list of rows": Bad("no rows", body(rows=[]), "rows", None, "application/json"),
    "rows that are an object": Bad("list", body(rows={}), "rows", None, "application/json"),
    "an unknown field of JSON": Bad("known", body(tempalte="x"), "tempalte", None, "application/json"),
    "an unknown default": Bad("not a recipe field", body(defaults={"prompt": "x"}), "defaults", None, "application/json"),
    "a bad default": Bad("", body(defaults={"steps": "many"}), "defaults.steps", None, "application/json"),
    "a bad default seed": Bad("", body(defaults={"seed": -1}), "defaults.seed", None, "application/json"),
    "broken JSON": Bad("", '{"rows": [', "body", None, "application/json", status=400),
    # the wrong kind of body
    "a form without a file": Bad("exactly one file", "", "file", media="multipart/form-data; boundary=x"),
    "plain text": Bad("Content-Type", "hello", "", media="text/plain", status=415),
}


def stored(farm: BulkFarm) -> tuple[int | None, ...]:
    with farm.store.read() as session:
        return tuple(session.scalar(select(func.count()).select_from(table)) for table in (Batch, Job))


@pytest.mark.parametrize("name", BAD)
def test_it_is_refused(name: str, shared_farm: BulkFarm) -> None:
    bad = BAD[name]
    before = stored(shared_farm)
    started = time.monotonic()
    response = shared_farm.send(bad.table, bad.media, **bad.query)
    assert time.monotonic() - started < 5
    assert response.status_code == bad.status, response.text[:500]
    assert response.mimetype == "application/problem+json"
    problem = response.json or {}
    if bad.names:
        error = problem["errors"][0]
        assert error["field"] == bad.names, problem
        said = f"{error['detail']} {error.get('remedy', '')}"
        assert any(part in said for part in bad.says.split("|")), problem
        assert error["remedy"]
        if bad.row is not None:
            assert error["row"] == bad.row
    assert stored(shared_farm) == before


def test_two_files_in_a_form(shared_farm: BulkFarm) -> None:
    files = {"file": (io.BytesIO(b"prompt\nmug\n"), "a.csv"), "more": (io.BytesIO(b"x"), "b.csv")}
    assert shared_farm.client.post(BATCHES, data=files).status_code == 422


def test_too_many_rows(shared_farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    from api.http.context import app_context_of

    assert shared_farm.app is not None
    monkeypatch.setattr(app_context_of(shared_farm.app).settings, "max_batch_rows", 3)
    response = shared_farm.send("prompt\n" + "mug\n" * 4)
    assert response.status_code == 422
    assert "more than 3 rows" in response.text


def test_too_many_bytes(shared_farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    from api.http.context import app_context_of

    assert shared_farm.app is not None
    monkeypatch.setattr(app_context_of(shared_farm.app).settings, "max_table_bytes", 1000)
    response = shared_farm.send("prompt\n" + "mug\n" * 1000)
    assert response.status_code == 413
    told = response.json or {}
    assert (told["limit"], told["value"]) == ("max_table_bytes", 1000)
    assert "max_table_bytes" in told["detail"]


def test_errors_are_listed_but_not_without_end(shared_farm: BulkFarm) -> None:
    response = shared_farm.send("prompt,steps\n" + "mug,x\n" * 500)
    assert response.status_code == 422
    assert len((response.json or {})["errors"]) == 100
    assert "500 of 500" in (response.json or {})["detail"]


def test_a_slow_template_is_stopped(shared_farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.batches.table.row_expansion.TEMPLATE_SECONDS", 0.01)
    slow = "{{ name" + "|upper|lower" * 12 + "|truncate(9) }}"
    table = "name\n" + ("x" * 60_000 + "\n") * 100
    response = shared_farm.send(table, template=slow)
    assert response.status_code == 422
    assert "took more than" in response.text
