"""Whether the licence of a source permits the intended use: licence names in SPDX form, and what each forbids."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.config.group import Group

Use = Literal["commercial", "research"]
Limit = Literal["non-commercial", "no-derivatives", "share-alike", "research-only", "none-granted"]
_MEANING: dict[Limit, str] = {
    "non-commercial": "forbids commercial use",
    "no-derivatives": "forbids derived works",
    "share-alike": "demands the same licence for derived works",
    "research-only": "permits research only",
    "none-granted": "permits no use",
}
_FREE = (
    "own",  # rows that the organisation wrote itself
    *("CC0-1.0", "PDDL-1.0", "Unlicense", "0BSD", "MIT", "MIT-0", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Zlib"),
    *("Apache-2.0", "AFL-3.0", "Artistic-2.0", "BSL-1.0", "NCSA", "PSF-2.0", "ODC-By-1.0", "CDLA-Permissive-1.0"),
    *("CDLA-Permissive-2.0", "ECL-2.0", "Unicode-3.0", "OGL-UK-3.0", "etalab-2.0", "MS-PL", "UPL-1.0", "public-domain"),
)
_SHARE_ALIKE = (
    *("ODbL-1.0", "CDLA-Sharing-1.0", "MPL-2.0", "EPL-2.0", "EUPL-1.2", "OSL-3.0", "GFDL-1.2", "GFDL-1.3"),
    *("GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later", "LGPL-2.1-only", "LGPL-2.1-or-later"),
    *("LGPL-3.0-only", "LGPL-3.0-or-later", "AGPL-3.0-only", "AGPL-3.0-or-later"),
)
_CC: dict[str, tuple[Limit, ...]] = {
    "CC-BY": (),
    "CC-BY-SA": ("share-alike",),
    "CC-BY-ND": ("no-derivatives",),
    "CC-BY-NC": ("non-commercial",),
    "CC-BY-NC-SA": ("non-commercial", "share-alike"),
    "CC-BY-NC-ND": ("non-commercial", "no-derivatives"),
}
LIMITS: dict[str, tuple[Limit, ...]] = {
    **dict.fromkeys(_FREE, ()),
    **dict.fromkeys(_SHARE_ALIKE, ("share-alike",)),
    **{f"{name}-{v}": limits for name, limits in _CC.items() for v in ("1.0", "2.0", "2.5", "3.0", "4.0")},
    "C-UDA-1.0": ("research-only",),
    "research-only": ("research-only",),
    "proprietary": ("none-granted",),
}
_SAME = {
    **{"apache": "Apache-2.0", "apache 2": "Apache-2.0", "apache license 2.0": "Apache-2.0"},
    **{"apache 2.0": "Apache-2.0", "apache software license": "Apache-2.0", "asl 2.0": "Apache-2.0"},
    **{"mit license": "MIT", "expat": "MIT", "bsd": "BSD-3-Clause", "bsd 3-clause license": "BSD-3-Clause"},
    **{"new bsd": "BSD-3-Clause", "simplified bsd": "BSD-2-Clause", "cc0": "CC0-1.0", "cc zero": "CC0-1.0"},
    **{"public domain": "public-domain", "pddl": "PDDL-1.0", "odbl": "ODbL-1.0", "odc-by": "ODC-By-1.0"},
    **{"gpl": "GPL-3.0-only", "gplv2": "GPL-2.0-only", "gplv3": "GPL-3.0-only", "gpl-2.0": "GPL-2.0-only"},
    **{"gpl v2": "GPL-2.0-only", "gpl v3": "GPL-3.0-only", "gnu general public license v3.0": "GPL-3.0-only"},
    **{"gpl-3.0": "GPL-3.0-only", "agpl-3.0": "AGPL-3.0-only", "lgpl-3.0": "LGPL-3.0-only"},
    **{"lgpl-2.1": "LGPL-2.1-only", "all rights reserved": "proprietary", "commercial": "proprietary"},
    **{"research only": "research-only", "non-commercial": "CC-BY-NC-4.0", "noncommercial": "CC-BY-NC-4.0"},
}
_BY_LOWER = {name.lower(): name for name in LIMITS} | _SAME
_CC_NAME = re.compile(r"cc[\s-]*((?:by|nc|sa|nd)(?:[\s-]+(?:by|nc|sa|nd))*)[\s-]*v?(\d(?:\.\d)?)?\s*(?:\(.*\))?")
_CC_WORDS = (
    *(("creative commons", "cc"), ("attribution", "by"), ("noncommercial", "nc"), ("non-commercial", "nc")),
    *(("sharealike", "sa"), ("share-alike", "sa"), ("share alike", "sa"), ("noderivatives", "nd")),
    *(("noderivs", "nd"), ("international", ""), ("unported", ""), ("license", ""), ("licence", "")),
)


class LicencePolicy(Group):
    """What the trained model is for, and what that means for the licences of its sources."""

    intended_use: Use = "commercial"
    """Use of the trained model; commercial keeps out licences that forbid it."""

    share_alike: Literal["allow", "refuse"] = "allow"
    """Whether licences that demand the same terms for derived works are accepted."""

    allow: list[str] = []
    """Licences to accept whatever the table says."""

    refuse: list[str] = []
    """Licences to refuse whatever the table says."""


@dataclass(frozen=True)
class LicenceVerdict:
    """Whether a source may be used."""

    name: str

    spdx: str | None
    """SPDX identifier; None for an unknown name."""

    reason: str | None
    """Why the source must not be used; None when it may."""


def spdx_name(name: str) -> str | None:
    """The SPDX identifier of a licence name as people write it; None for an unknown one."""
    plain = " ".join(re.sub(r",|\bversion\b", " ", name.lower().replace("_", "-")).split()).strip(" .")
    if plain in _BY_LOWER:
        return _BY_LOWER[plain]
    shortened = re.sub(r"^the | licen[sc]e$|^licensed under ", "", plain)
    return _BY_LOWER.get(shortened) or _creative_commons(plain)


def judge_licence(name: str, policy: LicencePolicy) -> LicenceVerdict:
    """Whether a source under that licence may be used. For `A OR B` one must permit it, for `A AND B` both."""
    allowed, refused = ({spdx_name(n) or n for n in names} for names in (policy.allow, policy.refuse))
    if "(" in name and {"AND", "OR"} <= set(name.replace("(", " ").replace(")", " ").split()):
        reason = f"'{name}' mixes AND and OR in parentheses; name only the licence that you use"
        return LicenceVerdict(name, None, reason)
    alternatives = [re.split(r"\s+AND\s+", part) for part in re.split(r"\s+OR\s+", name.strip(" ()"))]
    verdicts = [[_judge(part, policy, allowed, refused) for part in parts] for parts in alternatives]
    best = min(verdicts, key=lambda parts: sum(verdict.reason is not None for verdict in parts))
    reasons = [verdict.reason for verdict in best if verdict.reason]
    spdx = [verdict.spdx for verdict in best]
    known = None if None in spdx else " AND ".join(str(part) for part in spdx)
    return LicenceVerdict(name, known, "; ".join(reasons) or None)


def judge_licences(sources: Mapping[str, str], policy: LicencePolicy) -> dict[str, LicenceVerdict]:
    """The verdict on every source, by its name; `sources` gives each one's licence."""
    return {source: judge_licence(licence, policy) for source, licence in sources.items()}


def _judge(name: str, policy: LicencePolicy, allowed: set[str], refused: set[str]) -> LicenceVerdict:
    name = name.strip(" ()")
    spdx = spdx_name(name)
    if refused & {name, spdx}:
        return LicenceVerdict(name, spdx, f"{spdx or name} is refused by the policy")
    if allowed & {name, spdx}:
        return LicenceVerdict(name, spdx, None)
    if spdx is None:
        hint = f"if you may use it: audit.licences.allow=['{name}']"
        return LicenceVerdict(name, None, f"'{name}' is not a known licence; {hint}")
    broken = [_MEANING[limit] for limit in LIMITS[spdx] if _forbids(limit, policy)]
    reason = f"{spdx} {' and '.join(broken)} (intended use: {policy.intended_use})" if broken else None
    return LicenceVerdict(name, spdx, reason)


def _forbids(limit: Limit, policy: LicencePolicy) -> bool:
    """Whether a limit forbids the use. A trained model counts as a derived work of its data: the cautious reading."""
    if limit == "share-alike":
        return policy.share_alike == "refuse"
    return limit in ("no-derivatives", "none-granted") or policy.intended_use == "commercial"


def _creative_commons(plain: str) -> str | None:
    for words, short in _CC_WORDS:
        plain = plain.replace(words, short)
    match = _CC_NAME.fullmatch(plain.strip())
    if not match:
        return None
    parts = match.group(1).replace("-", " ").split()
    ordered = "-".join(["CC", *(part for part in ("by", "nc", "nd", "sa") if part in parts)]).upper()
    version = match.group(2) or "4.0"
    found = f"{ordered}-{version if '.' in version else version + '.0'}"
    return found if found in LIMITS else None
