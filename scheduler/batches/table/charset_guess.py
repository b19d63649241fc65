"""Guesses the charset of a text that is not UTF-8, most likely first, for a person to choose from.

A guess is never applied automatically: the bytes of a German word are also two Chinese characters.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass

MAX_GUESSES = 3
LOOKED_AT_BYTES = 4096
SAMPLE_CHARS = 30
MIN_SCORE = 0.35
CELL_ENDS = re.compile(r"[,;|\t\r\n\"]+")
MIN_KOREAN_CHARS = 4
HANGUL_LEADS = range(0xB0, 0xC9)
"""First bytes of Korean syllables in EUC-KR. Chinese characters in GBK use them too, besides others."""
HIRAGANA_KATAKANA = re.compile("[\u3040-\u30ff]")


@dataclass(frozen=True, slots=True)
class Guess:
    """A charset, and a cell decoded with it."""

    charset: str
    sample: str


def guess_charsets(data: bytes, start: int = 0) -> list[Guess]:
    """The charsets in which `data` reads like words, most likely first. `start`: first byte that is not UTF-8."""
    begin = max(0, data.rfind(b"\n", 0, start) + 1, start - LOOKED_AT_BYTES)
    data = data[begin : begin + LOOKED_AT_BYTES]
    scored = []
    for charset, (codec, score) in CANDIDATES.items():
        try:
            text = codecs.getincrementaldecoder(codec)("strict").decode(data)
        except UnicodeDecodeError:
            continue
        odd = [character for character in text if character > "\x7f"]
        if odd and (value := score(text, odd, data)) >= MIN_SCORE:
            scored.append((-value, charset, text))
    samples: dict[str, str] = {}
    for _, charset, text in sorted(scored):
        samples.setdefault(_sample(text), charset)
    return [Guess(charset, sample) for sample, charset in list(samples.items())[:MAX_GUESSES]]


def _sample(text: str) -> str:
    """The first cell that is not plain ASCII."""
    cells = (cell.strip()[:SAMPLE_CHARS] for cell in CELL_ENDS.split(text))
    return next((cell for cell in cells if not cell.isascii()), "")


def _split_pairs(data: bytes) -> float:
    """The share of runs of bytes above 127 that have an odd length: letters of a Western word, not two-byte characters."""
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", data)]
    return sum(length % 2 for length in runs) / len(runs)


def _gb(text: str, odd: list[str], data: bytes) -> float:
    leads = [_lead(character, "gb2312") for character in odd]
    common = sum(1 for lead in leads if lead in range(0xA1, 0xD8)) / len(odd)
    korean = len(leads) >= MIN_KOREAN_CHARS and all(lead in HANGUL_LEADS for lead in leads)
    return common * (1 - _split_pairs(data)) * (0.9 if korean else 1) - 0.3 * _share(HIRAGANA_KATAKANA, odd)


def _big5(text: str, odd: list[str], data: bytes) -> float:
    return 0.9 * sum(1 for character in odd if _lead(character, "big5") in range(0xA1, 0xC7)) / len(odd)


def _korean(text: str, odd: list[str], data: bytes) -> float:
    hangul = sum(1 for character in odd if "\uac00" <= character <= "\ud7a3") / len(odd)
    return 0.95 * hangul * (1 - _split_pairs(data))


def _japanese(text: str, odd: list[str], data: bytes) -> float:
    wide = [character for character in odd if not "\uff61" <= character <= "\uff9f"]  # any byte can be a half-width kana
    kana = sum(1 for character in wide if HIRAGANA_KATAKANA.match(character))
    kanji = sum(1 for character in wide if _lead(character, "shift_jis") in range(0x88, 0x99))
    return (kana + kanji) / len(odd) * (1 if kana else 0.8)


def _western(letters: str, weight: float = 1.0) -> Callable[[str, list[str], bytes], float]:
    def score(text: str, odd: list[str], data: bytes) -> float:
        usual = sum(1 for character in odd if character in letters) / len(odd)
        return weight * usual * (0.5 + 0.45 * _split_pairs(data))

    return score


def _cyrillic(text: str, odd: list[str], data: bytes) -> float:
    words = re.findall("[А-Яа-яёЁ]+", text)
    usual = sum(len(word) for word in words if word.lower() == word or word.upper() == word or word.istitle())
    return 0.85 * usual / len(odd)


def _share(pattern: re.Pattern[str], odd: list[str]) -> float:
    return sum(1 for character in odd if pattern.match(character)) / len(odd)


def _lead(character: str, codec: str) -> int:
    """The first byte of a character in a two-byte charset; 0 if the charset does not have the character."""
    try:
        return character.encode(codec)[0]
    except UnicodeEncodeError:
        return 0


PUNCTUATION = "„“”‚‘’–—…€«»°²³½"
CANDIDATES: dict[str, tuple[str, Callable[[str, list[str], bytes], float]]] = {
    "gb18030": ("gb18030", _gb),
    "big5": ("cp950", _big5),
    "shift_jis": ("cp932", _japanese),
    "euc-kr": ("cp949", _korean),
    "windows-1252": ("cp1252", _western("äöüßÄÖÜéèêëÉÈàâáÀçÇñÑóòôõøØíìîïúùûåÅæÆœãÃ®™" + PUNCTUATION)),
    "windows-1250": ("cp1250", _western("áčďéěíňóřšťúůýžłąęćńśźżőűăâîşţäöüßÁČĎÉĚÍŇÓŘŠŤÚŮÝŽŁĄĘĆŃŚŹŻŐŰ" + PUNCTUATION, 0.98)),
    "windows-1251": ("cp1251", _cyrillic),
}
"""By the name to send: Python's codec, and a function that scores how well a text fits the charset."""
