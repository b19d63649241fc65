"""English texts that a page can say in another language. The English is the key of its translation.

`make translations` collects the texts that are marked here, wherever they stand.
"""

from __future__ import annotations

from typing import Self


def N_(text: str) -> str:
    """Mark `text` for translation, and return it as it is. The name is gettext's own."""
    return text


class Message(str):
    """A text with named values, `%(name)s` in it. As a string it is the English text, filled in.

    `msgid` and `values` let a page fill in the translation instead.
    """

    msgid: str
    values: dict[str, object]

    def __new__(cls, msgid: str, **values: object) -> Self:
        """Fill `values` into `msgid`. Without values the text is taken as it is, percent signs included."""
        message = super().__new__(cls, msgid % values if values else msgid)
        message.msgid, message.values = msgid, values
        return message
