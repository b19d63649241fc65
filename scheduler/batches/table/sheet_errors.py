"""Cells in which a spreadsheet wrote what went wrong with a formula."""

from __future__ import annotations

import re
from typing import Any

SHEET_ERROR = re.compile(
    r"#(?:N/A|REF!|VALUE!|NAME\?|DIV/0!|NULL!|NUM!|SPILL!|CALC!|FIELD!|BLOCKED!|CONNECT!|UNKNOWN!|BUSY!|GETTING_DATA|ERROR!"
    r"|NV|BEZUG!|WERT!|ZAHL!|VALEUR!|NOMBRE!|NOM\?|NOMBRE\?|VALOR!|N/D)|Err:\d{3}|=+#REF!.*",
    re.IGNORECASE,
)
"""As Excel, LibreOffice and Google Sheets write them, in some languages."""


def sheet_error(cell: Any) -> str | None:
    """The error that a cell holds, or None.

    >>> sheet_error("#N/A"), sheet_error("#1 mug")
    ('#N/A', None)
    """
    return cell if isinstance(cell, str) and cell[:1] in "#E=" and SHEET_ERROR.fullmatch(cell) else None
