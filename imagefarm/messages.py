"""English texts that the pages can translate. The English text is the key (msgid) of its translation.

`make translations` collects the marked texts from all modules.
"""

from __future__ import annotations

from typing import Self


def N_(text: str) -> str:
    """Mark `text` for translation and return it unchanged. `N_` is gettext's own name for this."""
    return text


class Message(str):
    """A text with placeholders such as `%(name)s`, and their values. As a string it is the English text with the values filled
    in.

    Pages fill the values into the translation of `msgid`.
    """

    msgid: str
    values: dict[str, object]

    def __new__(cls, msgid: str, **values: object) -> Self:
        """Fill `values` into `msgid`. Without values `msgid` is used unchanged, including percent signs."""
        message = super().__new__(cls, msgid % values if values else msgid)
        message.msgid, message.values = msgid, values
        return message
