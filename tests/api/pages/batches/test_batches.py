"""Batches: quote and launch by form, one batch with its orders that say how many, its errors, its contact sheet."""

import io
import re
from base64 import b64encode
from typing import Any

import pytest

from scheduler.queue import finish
from scheduler.queue.retry import Failure, FailureClass
from tests.api.pages.conftest import Site
from tests.api.pages.payloads import PAYLOADS
from tests.api.pages.reading import Reading

TEMPLATE = "{{ product }} on a {{ background }}"
TABLE = "sku,product,background\n" + "".join(f"P-{number},a red mug,white background\n" for number in range(5))
HEADERS = {"Origin": "http://localhost", "Accept": "text/html"}


def post(site: Site, **fields: Any) -> Any:
    return site.http.post("/batches", data={"template": TEMPLATE, "act": "launch"} | fields, headers=HEADERS)


def launch(site: Site, **fields: Any) -> str:
    response = post(site, **({"table": TABLE} | fields))
    assert response.status_code == 303, Reading(response.text).text
    return str(response.headers["Location"].rpartition("/")[2])


def order(site: Site, batch_id: str, name: str) -> None:
    assert site.http.post(f"/batches/{batch_id}/{name}", headers=HEADERS).status_code == 303


def test_an_empty_list_says_the_next_step_in_both_languages(site: Site) -> None:
    assert "No batches yet." in site.page("/batches").text
    assert "还没有批次" in site.page("/batches", "zh").text


def test_a_quote_stores_nothing_and_says_what_it_costs(site: Site) -> None:
    response = post(site, table=TABLE, act="quote", count="2")
    assert response.status_code == 200
    text = Reading(response.text).text
    assert "10 pictures" in text
    assert "a red mug on a white background" in text
    assert "Render 10 pictures" in text
    assert site.get("/api/v1/batches")["items"] == []


def test_a_table_is_launched_from_a_file_and_from_pasted_rows(site: Site) -> None:
    by_file = launch(site, table="", file=(io.BytesIO(TABLE.encode()), "spring.csv"))
    assert site.get(f"/api/v1/batches/{by_file}")["name"] == "spring.csv"
    pasted = launch(site, name="pasted", canary="2")
    response = site.get(f"/api/v1/batches/{pasted}")
    assert (response["name"], response["state"], response["counts"]["queued"]) == ("pasted", "held", 2)
    assert "spring.csv" in site.page("/batches").text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"table": ""}, "choose a file"),
        ({"table": TABLE, "template": "{{ nothing }}"}, "nothing"),
        ({"table": "sku,product\nA,\nB,mug"}, "background"),
        ({"table": TABLE, "model": "unknown"}, "no model is called"),
        ({"table": TABLE, "count": "100"}, "count"),
        ({"table": TABLE, "seed": "x"}, "seed"),
    ],
)
def test_what_is_wrong_with_a_table_comes_back_with_the_form(site: Site, fields: dict[str, str], words: str) -> None:
    response = post(site, **fields)
    assert response.status_code == 422
    reading = Reading(response.text)
    assert words in reading.text
    assert reading.wrong == []


def test_orders_say_how_many_and_are_done(site: Site) -> None:
    batch = launch(site, canary="2")
    page = f"/batches/{batch}"
    assert "Start the other 3 jobs" in site.page(page).text
    order(site, batch, "approve")
    assert "Pause 5 waiting jobs" in site.page(page).text
    order(site, batch, "pause")
    assert "Resume 5 jobs" in site.page(page).text
    order(site, batch, "resume")
    assert "Cancel 5 unfinished jobs" in site.page(page).text
    order(site, batch, "cancel")
    text = site.page(page, "zh").text
    assert "已取消 <strong>5</strong>" in text
    assert "<form" not in text.partition('id="live"')[2].partition('id="sheet-live"')[0]
    assert site.http.post(f"/batches/{batch}/burn", headers=HEADERS).status_code == 404
    assert site.http.post(f"/batches/{batch}/cancel", headers={"Origin": "https://example.org"}).status_code == 403


def test_failures_are_grouped_and_counted(site: Site) -> None:
    batch = launch(site)
    for job in site.get(f"/api/v1/jobs?batch={batch}")["items"][:1:-1]:  # oldest first, as they are claimed
        failure = Failure(FailureClass.INPUT, "bad_prompt", "names nothing <i>at all</i>")
        finish.fail(site.app_context.store, site.claim(job["id"]), failure, site.app_context.settings)
    text = site.page(f"/batches/{batch}").text
    assert "bad_prompt" in text
    assert "names nothing &lt;i&gt;at all&lt;/i&gt;" in text
    assert "Retry 3 failed jobs" in text
    assert "errors.csv" in text


def test_the_contact_sheet_comes_in_pieces_in_the_order_of_the_table(site: Site) -> None:
    rows = "sku,product,background\n" + "".join(f"S-{number:03d},mug,white\n" for number in range(70))
    batch = launch(site, table=rows)
    text = site.page(f"/batches/{batch}").text
    assert re.findall(r'<span class="line small">(S-\d+)', text) == [f"S-{number:03d}" for number in range(60)]
    more = re.search(r'href="(/batches/\w+/sheet\?after=\w+)"', text)
    assert more is not None
    rest = site.page(more[1]).text
    assert re.findall(r'<span class="line small">(S-\d+)', rest) == [f"S-{number:03d}" for number in range(60, 70)]
    assert site.page(f"/batches/{batch}/sheet?after=x").status_code == 422


def test_hostile_text_stays_text(site: Site) -> None:
    for payload in PAYLOADS[::2]:
        quoted = payload.replace('"', '""').replace("{", "(").replace("}", ")")
        if quoted.replace('""', '"') != payload:
            continue
        batch = launch(site, table=f'sku,product\nA,"{quoted}"', template="{{ product }}", name=payload)
        Reading(site.page(f"/batches/{batch}").text).check(payload)
    for payload in PAYLOADS[::5]:
        refused = post(site, table=payload, template=payload, name=payload, model=payload, seed=payload)
        assert refused.status_code == 422
        Reading(refused.text).check(payload)
    assert Reading(site.page("/batches").text).wrong == []


def preview(site: Site, **fields: str) -> str:
    response = site.http.post("/batches/preview", data=fields, headers=HEADERS)
    assert response.status_code == 200
    reading = Reading(response.text)
    assert reading.wrong == []
    return reading.text


def test_a_preview_shows_columns_and_the_first_three_prompts(site: Site) -> None:
    text = preview(site, head=TABLE, template=TEMPLATE)
    assert text.count("a red mug on a white background") == 3
    assert "background" in text
    assert "there is no column 'colour'" in preview(site, head=TABLE, template="{{ colour }}")
    assert "a mug" in preview(site, head='{"product": "a mug"}\n', kind="json", template="{{ product }}")
    assert preview(site, head="", template="x").strip() == ""
    for payload in PAYLOADS[::4]:
        preview(site, head=f"sku,{payload}\nA,{payload}", template=payload, **{f"map.{payload}": payload})


def test_columns_are_taken_for_what_the_form_says(site: Site) -> None:
    table = "Artikel,Ware,Zahl\nA-1,a mug,3\nA-2,a vase,4\n"
    mapping = {"map.Artikel": "sku", "map.Ware": "product", "map.Zahl": "-"}
    assert "a vase, new" in preview(site, head=table, template="{{ product }}, new", **mapping)
    batch = launch(site, table=table, template="{{ product }}, new", **mapping)
    jobs = site.get(f"/api/v1/jobs?batch={batch}")["items"]
    assert {(job["recipe"]["prompt"], job["labels"].get("sku")) for job in jobs} == {
        ("a mug, new", "A-1"),
        ("a vase, new", "A-2"),
    }
    twice = post(site, table=table, template="x", **{"map.Artikel": "sku", "map.Ware": "sku"})
    assert twice.status_code == 422
    assert "two columns are mapped to" in Reading(twice.text).text


def test_a_table_sent_again_says_what_changed(site: Site) -> None:
    first = launch(site, name="again")
    for job in site.get(f"/api/v1/jobs?batch={first}")["items"][::-1]:
        site.render(site.claim(job["id"]))
    form = site.page(f"/batches?update_of={first}").text
    assert f'name="update_of" value="{first}"' in form
    quote = post(site, table=TABLE.replace("P-1,a red mug", "P-1,a blue vase") + "P-9,a bag,white background\n", template="",
                 update_of=first, act="quote")  # fmt: skip
    assert quote.status_code == 200, Reading(quote.text).text
    assert "Unchanged 4 · Changed 1 · New 1 · Removed 0" in " ".join(Reading(quote.text).text.split())
    second = launch(site, table=TABLE.replace("P-1,a red mug", "P-1,a blue vase"), template="", update_of=first)
    assert "report.csv" in site.page(f"/batches/{second}").text


def test_cells_of_the_sheet_are_small_and_those_of_others_are_not_found(site: Site) -> None:
    batch = launch(site)
    job = site.get(f"/api/v1/jobs?batch={batch}")["items"][-1]["id"]
    image = site.render(site.claim(job))[0]
    cells = site.get(f"/batches/{batch}/cells.json")
    assert cells["jobs"][0] == [job, "P-0", "succeeded", 1, [[0, image, "", ""]]]
    assert cells["next"] is None
    assert site.get(f"/batches/{batch}/cells.json?after={job}")["jobs"][0][1] == "P-1"
    other = site.key("someone else")
    for path in (f"/batches/{batch}", f"/batches/{batch}/cells.json"):
        assert site.page(path, **other).status_code == 404
    assert site.app.test_client(use_cookies=False).post(f"/batches/{batch}/finals", headers=other).status_code in {404, 422}


def test_a_preview_knows_variants_and_charsets(site: Site) -> None:
    text = preview(site, head=TABLE, template="{{ product }}, {{ view }}", variants='{"view": ["from above", "side"]}')
    assert "from above" in text
    assert "no column" not in text
    assert "from above" not in preview(site, head=TABLE, template="{{ product }}", variants='{"view": ["from ab')  # being typed
    gbk = b64encode("sku,product\nA-1,红色马克杯\n".encode("gbk")).decode()
    assert "charset=gb18030 if it is meant to read" in preview(site, head=gbk, coding="base64", template="{{ product }}")
    assert "红色马克杯" in preview(site, head=gbk, coding="base64", charset="gb18030", template="{{ product }}!")
    workbook = b64encode(b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml").decode()
    assert "is an Excel workbook" in preview(site, head=workbook, coding="base64")
    assert "is almost the column" in preview(site, head="promt,sku\nx,A\n", template="{{ promt }}")
    response = site.http.post("/batches/preview", data={"head": "%", "coding": "base64"}, headers=HEADERS)
    assert response.status_code == 422


def test_a_preview_of_an_update_reads_as_the_earlier_table_was_read(site: Site) -> None:
    table = "Artikel,product\nA-1,a mug\n"
    fields = {"template": "{{ product }}, {{ view }}", "variants": '{"view": ["front"]}', "map.Artikel": "sku", "name": "again"}
    first = launch(site, table=table, **fields)
    for job in site.get(f"/api/v1/jobs?batch={first}")["items"]:
        site.render(site.claim(job["id"]))
    text = preview(site, head=table, update_of=first)
    assert "a mug, front" in text
    assert "has no prompt" not in text
    second = launch(site, table=table, template="", update_of=first)
    assert site.get(f"/api/v1/batches/{second}")["changes"]["reused"] == 1
