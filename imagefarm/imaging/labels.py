"""Metadata about how an image was made, in the form that each file format supports.

PNG has text chunks. JPEG and WebP have none: A1111's text goes into their EXIF UserComment, as A1111 writes it, and the farm's
own record into XMP. The XMP of all three formats says, in IPTC's terms, that an algorithm made the image.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from imagefarm.version import __version__

PARAMETERS = "parameters"
FARM = "imagefarm"
"""Keyword of the text with the farm's own record, JSON."""
XMP = "XML:com.adobe.xmp"
"""Keyword of the PNG text chunk that holds the XMP."""
NAMESPACE = "https://imagefarm.invalid/ns/1.0/"
MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
COMPOSED = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC source type of a real subject's pixels with generated surroundings."""
EXIF_IFD, SOFTWARE, USER_COMMENT = 0x8769, 0x0131, 0x9286
UNICODE, ASCII = b"UNICODE\0", b"ASCII\0\0\0"
RECORD = re.compile(r"<imagefarm:record>([^<]{1,20000})</imagefarm:record>")
MAX_XMP_CHARS = 1_000_000


def xmp_packet(record: str = "", *, source: str = MADE) -> bytes:
    """The XMP of an image; `record` is the farm's own, for formats without text chunks."""
    own = f"<imagefarm:record>{html.escape(record, quote=False)}</imagefarm:record>" if record else ""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f' xmlns:imagefarm="{NAMESPACE}">'
        f"<Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType>"
        "<Iptc4xmpExt:AISystemUsed>imagefarm</Iptc4xmpExt:AISystemUsed>"
        f"<Iptc4xmpExt:AISystemVersionUsed>{__version__}</Iptc4xmpExt:AISystemVersionUsed>"
        f'{own}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def texts_of(info: Mapping[Any, Any], exif: Any) -> dict[str, str]:
    """The texts of an image opened with Pillow, by keyword, for any format. A file's author can write anything into them."""
    texts = {key: value for key, value in info.items() if isinstance(key, str) and isinstance(value, str)}
    comment = exif.get_ifd(EXIF_IFD).get(USER_COMMENT)
    if PARAMETERS not in texts and isinstance(comment, bytes) and (text := _comment_text(comment)):
        texts[PARAMETERS] = text
    if FARM not in texts:
        packet = info.get("xmp") or info.get(XMP) or b""
        text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet)
        if (found := RECORD.search(text[:MAX_XMP_CHARS])) is not None:
            texts[FARM] = html.unescape(found[1])
    return texts


def user_comment(text: str) -> bytes:
    """`text` as an EXIF UserComment, byte for byte as A1111 writes it."""
    return UNICODE + text.encode("utf-16-be")


def _comment_text(comment: bytes) -> str:
    marker, body = comment[:8], comment[8:]
    if marker == UNICODE:
        # A1111 writes big-endian regardless of the file's byte order; other programs use the file's byte order
        little = body[1:2] == b"\0" and body[:1] != b"\0"
        return body[: len(body) // 2 * 2].decode("utf-16-le" if little else "utf-16-be", "replace")
    return body.decode("ascii", "replace") if marker == ASCII else ""
