"""A page as a browser's parser takes it: its elements, its attributes, its text."""

from __future__ import annotations

from html.parser import HTMLParser

OURS = ("/", "#", "?")
HTMX = frozenset(
    {
        "hx-get",
        "hx-select",
        "hx-target",
        "hx-swap",
        "hx-trigger",
        "hx-config",
        "hx-sse:connect",
        "hx-post",
        "hx-include",
        "hx-select-oob",
        "hx-morph-skip",
        "hx-status:4xx",
    }
)
NEVER = frozenset({"iframe", "object", "embed", "base", "style", "template", "math", "video", "hx-partial"})
DOCUMENT = frozenset({"link", "meta", "script", "form"})


class Reading(HTMLParser):
    """Parse `html` and keep what matters."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.values: list[str] = []
        self.wrong: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in NEVER or (tag == "script" and "src" not in dict(attrs)):
            self.wrong.append(f"<{tag}>")
        for name, value in attrs:
            text = value or ""
            self.values.append(text)
            if name.startswith("on") or name == "style" or (name.startswith(("hx-", "data-hx")) and name not in HTMX):
                self.wrong.append(f"{name} of {tag}")
            if (
                name in {"href", "src", "action", "formaction", "hx-get", "content"}
                and tag != "meta"
                and not text.startswith(OURS)
            ):
                self.wrong.append(f"{name}={text[:80]} of {tag}")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def check(self, *payloads: str) -> None:
        """Each payload is on the page as text, and made nothing on it."""
        assert self.wrong == [], self.wrong
        for payload in payloads:
            for part in payload.strip().split("`"):
                assert part in self.text, f"{part!r} is not on the page"
