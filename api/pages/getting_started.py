"""`/getting-started`: a first image by curl, Python, the command line and a table, with this farm's URL in each example."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Response, request

from api.http.context import AppContext
from api.pages.i18n import language
from api.pages.registry import Pages
from api.pages.rendering import page
from imagefarm.auth import Scope, is_open
from imagefarm.messages import N_

pages = Pages("pages_getting_started")

PROMPTS = {"en": "a red mug on a white background", "zh": "白色背景上的红色马克杯"}
KEY = "if_YOUR_KEY"
"""A placeholder for the reader's key. The page's script replaces it in the browser; the key is never sent."""


@dataclass(frozen=True, slots=True)
class Step:
    """One way to make a first image. The tests run `code` unchanged."""

    id: str
    title: str
    hint: str
    code: str


@dataclass(frozen=True, slots=True)
class GettingStartedView:
    """The examples. `asks_key` is true on a farm that needs an API key."""

    steps: tuple[Step, ...]
    url: str
    asks_key: bool
    key: str = KEY


@pages.get("/getting-started", scope=Scope.READ)
def getting_started_page(app_context: AppContext) -> Response:
    """Show the first steps."""
    asks = not is_open(app_context.settings)
    url = request.host_url.rstrip("/")
    return page("getting_started.html", GettingStartedView(steps(url, PROMPTS[language()], asks_key=asks), url, asks))


def steps(url: str, prompt: str, *, asks_key: bool) -> tuple[Step, ...]:
    """Examples of one first image in four ways, for a farm at `url`."""
    header = " \\\n  -H 'Authorization: Bearer " + KEY + "'" if asks_key else ""
    client = f'Client("{url}", key="{KEY}")' if asks_key else f'Client("{url}")'
    exported = f"export IMAGEFARM_URL={url}\n" + (f"export IMAGEFARM_API_KEY={KEY}\n" if asks_key else "")
    return (
        Step(
            "curl",
            N_("With curl"),
            N_(
                "The response arrives when the picture is ready, after 60 seconds at most. "
                "Its `images` hold the address of the file."
            ),
            f"curl -s {url}/api/v1/jobs{header} \\\n"
            "  -H 'Content-Type: application/json' -H 'Prefer: wait=60' \\\n"
            f'  -d \'{{"prompt": "{prompt}", "seed": 42}}\'',
        ),
        Step(
            "python",
            N_("With Python"),
            N_("The client comes with the project and uses the REST API."),
            "from imagefarm import Client\n\n"
            f"with {client} as farm:\n"
            f'    job = farm.jobs.wait(farm.jobs.submit("{prompt}", seed=42))\n'
            '    print(farm.jobs.download(job, "pictures"))',
        ),
        Step(
            "cli",
            N_("From the command line"),
            N_("The command shows progress while it renders; add `--json` for programs."),
            exported + f'imagefarm submit "{prompt}" --seed 42 --out pictures',
        ),
        Step(
            "table",
            N_("From a table"),
            N_(
                "Each row makes one picture; the template names the columns. "
                "The batch page shows progress, errors and the contact sheet."
            ),
            f"printf 'sku,product\\nA-1,red mug\\nA-2,blue chair\\n' |\n"
            f"  curl -s '{url}/api/v1/batches?name=First&template=%7B%7B%20product%20%7D%7D'{header} \\\n"
            "    -H 'Content-Type: text/csv' --data-binary @-",
        ),
    )
