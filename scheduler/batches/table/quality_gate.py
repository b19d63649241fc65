"""The quality gate of a batch: rules on scores that accept an image, send it to review, or re-roll it with the next seed.

| score | what it is | source |
|---|---|---|
| `sharpness` | variance of the Laplacian of the brightness (0 to 255), at most 512 pixels a side | Pech-Pacheco 2000 |
| `exposure` | mean brightness, 0 black to 1 white | |
| `contrast` | standard deviation of the brightness, 0 to 127.5: near 0 is one flat colour | RMS contrast, Peli 1990 |
| `duplicate` | bits of 64 in which its difference hash differs from the nearest image of the same row | dHash, Krawetz 2013 |
| `subject` | share of the subject's opaque pixels that are the photo's own, 0 to 1; product mode only | |

Brightness is that of ITU-R BT.601. The worker measures the scores in finishing. The verdict is given in the transaction that
commits the image, so that two siblings that end at the same moment see each other.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from imagefarm.text import NotBool

Number = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False), NotBool]
RULES = ("sharpness", "exposure", "contrast", "duplicate", "subject")
ACCEPT, REVIEW, REROLL = "accept", "review", "reroll"


class Rule(BaseModel):
    """The bounds of a score, and the action for an image whose score is outside them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_least: Number | None = None
    at_most: Number | None = None
    otherwise: Literal["review", "reroll"] = "review"

    @model_validator(mode="after")
    def _says_something(self) -> Rule:
        if self.at_least is None and self.at_most is None:
            raise ValueError("has neither at_least nor at_most; send one of them")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least:g} is more than at_most {self.at_most:g}; no picture can pass")
        return self

    def holds(self, score: float) -> bool:
        """Whether a score is within the bounds."""
        return (self.at_least is None or score >= self.at_least) and (self.at_most is None or score <= self.at_most)


class QualityGate(BaseModel):
    """The rules of a batch. An image that breaks none is accepted; a missing score breaks no rule."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sharpness: Rule | None = None
    exposure: Rule | None = None
    contrast: Rule | None = None
    duplicate: Rule | None = None
    subject: Rule | None = None
    rerolls: Annotated[int, Field(ge=0, le=10), NotBool] = Field(
        2, description="Maximum number of re-rolls of an image; then it goes to review"
    )
    approve: bool = Field(False, description="Accepted pictures are approved at once")

    @model_validator(mode="after")
    def _has_a_rule(self) -> QualityGate:
        if not any(getattr(self, name) for name in RULES):
            raise ValueError(f"has no rule; send some of {', '.join(RULES)}")
        return self

    def judge(self, scores: dict[str, Any]) -> tuple[str, list[str]]:
        """Return the verdict on these scores, and the names of the broken rules."""
        broken = []
        for name in RULES:
            rule: Rule | None = getattr(self, name)
            if rule is not None and (score := scores.get(name)) is not None and not rule.holds(score):
                broken.append(name)
        if not broken:
            return ACCEPT, broken
        again = any(getattr(self, name).otherwise == REROLL for name in broken)
        return (REROLL if again else REVIEW), broken


def distance(one: str, other: str) -> int:
    """Number of bits in which two 64-bit hashes, in hexadecimal, differ.

    >>> distance("00000000000000ff", "000000000000000f")
    4
    """
    return (int(one, 16) ^ int(other, 16)).bit_count()
