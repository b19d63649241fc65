"""Detects cells that contain a spreadsheet's error value."""

from __future__ import annotations

import re
from typing import Any

SHEET_ERROR = re.compile(
    r"#(?:N/A|REF!|VALUE!|NAME\?|DIV/0!|NULL!|NUM!|SPILL!|CALC!|FIELD!|BLOCKED!|CONNECT!|UNKNOWN!|BUSY!|GETTING_DATA|ERROR!"
    r"|NV|BEZUG!|WERT!|ZAHL!|VALEUR!|NOMBRE!|NOM\?|NOMBRE\?|VALOR!|N/D)|Err:\d{3}|=+#REF!.*",
    re.IGNORECASE,
)
"""Error values of Excel, LibreOffice and Google Sheets, in several languages."""


def sheet_error(cell: Any) -> str | None:
    """The spreadsheet error that a cell contains, or None.

    >>> sheet_error("#N/A"), sheet_error("#1 mug")
    ('#N/A', None)
    """
    return cell if isinstance(cell, str) and cell[:1] in "#E=" and SHEET_ERROR.fullmatch(cell) else None
