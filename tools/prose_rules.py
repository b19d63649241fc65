"""The word list of `make prose`: words and phrases that a reader has to guess at, each with the plain one to use.

Every pattern ignores case. A rule is right for most sentences and not for all: the marker `prose: ok` on a line excepts it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """`pattern` finds the words; `instead` says how to write it."""

    pattern: re.Pattern[str]
    instead: str


CLAUSE = r"(?:^|[.;:!?(—–-] |, |\b(?:and|or|but|so|that|than|as|if|when|where|because) )"
"""Where a clause may begin, so that the next word can be its subject."""
VERB = r"(?!(?:this|its|these|those)\b)(?:[a-z]+[^s\W]s|is|was|has|had|may|can|cannot|could|must|will|would|never|still|already)"
"""What follows a subject: a verb in the third person, near enough, or a word that goes before one."""

SPELLED = {
    # phrases of the project's old dialect
    r"\banew\b": "again",
    r"\bmend(?:s|ed|ing)?\b": "fix, repair, correct",
    r"\bshall\b": "must, will, or the imperative",
    r"\b(?:let|lets|letting) (?:\w+ )?go\b": "release",
    r"\btold\b": "notified, reported, passed; or say who passes what",
    r"\bso (?:many|long|often)\b": "the number, the time or the rate itself: `up to 256 MB`, `for 10 s`",
    r"\bthe same (?:of|when|where|while|if|without)\b": "repeat the fact: a sentence does not lean on the one before",
    r"\bis no (?!longer\b)\w+ that\b": "must be ...: say what is allowed",
    r"(?<!there )\b(?:is|are) no (?!longer\b|more than\b|less than\b|one\b)\w+": "is not a ..., must be ...",
    r"\bnothing (?:has|of it|in it)\b": "not found; or say which thing lacks what",
    r"\b(?:no|never) more\b(?! than)": "no longer, never again",
    r"\b(?:gives?|gave|giving) way\b": "yield",
    r"\bfor want of\b": "because of missing ..., without",
    r"\bto be had\b": "available",
    r"\b(?:its|the|their) like\b": "name the other things, or `similar`",
    r"\bfor ever\b": "forever",
    r"\b(?:stands?|stood|standing) still\b": "hangs, does not advance",
    r"\b(?:lest|whence|thence|thereof|hitherto|henceforth|ere|whosoever|wherein)\b": "today's word",
    r"\bwhoever\b": "a noun: the caller, the client, the reader",
    # names that the project has replaced
    r"\bthe desk\b|\bdesk pages?\b": "the admin pages",
    r"\btrace page\b": "lookup page",
    r"\b(?:over)seer\b": "child monitor",
    r"\bsigns? of life\b": "liveness counter",
    r"\bsecond look\b": "isolated retry",
    r"\bnudg(?:e|es|ed|ing)\b": "notify the lane",
    r"\bholdings\b": "leased jobs",
    r"\bgatekeeping\b": "quality gate",
    r"\bretouch(?:es|ed|ing)?\b": "compositing",
    r"\bunhold\b": "release",
    r"\bfirst making\b": "original",
    r"\b(?:half|halves) \d+(?:\.\d+)? m?s\b": "p50",
    r"\bthrow the dice\b": "random seed",
    # a clause whose subject is a question word
    CLAUSE
    + r"(?:for |to |of |by |with |from |until |since )?who "
    + VERB
    + r"\b(?![^.]*\?)": "a noun as the subject: the worker, the caller, a job",
    CLAUSE + r"what " + VERB + r"\b(?![^.]*\?)": "a noun as the subject: the file, the row, the image",
}
RULES = tuple(Rule(re.compile(pattern, re.IGNORECASE), instead) for pattern, instead in SPELLED.items())
