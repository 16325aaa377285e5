"""Licences as the Hub names them (https://huggingface.co/docs/hub/repositories-licenses), read on 21 November 2026."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from diffsteer.errors import Mistake

# fmt: off
KNOWN = frozenset({
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0",
    "bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "c-uda",
    "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
    "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0",
    "eupl-1.1", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc", "lppl-1.3c", "ms-pl", "mpl-2.0",
    "odc-by", "odbl", "openrail++", "osl-3.0", "postgresql", "ofl-1.1", "ncsa", "unlicense", "zlib", "pddl", "lgpl-lr",
    "deepfloyd-if-license", "llama2", "gemma", "unknown", "other",
})
# fmt: on


@dataclass(frozen=True)
class Licences:
    """Under which licence the model may be used, and under which its data was, by the Hub's names; None where nobody said."""

    model: str | None = None
    data: str | None = None

    def __post_init__(self) -> None:
        for flag, given in (("--license", self.model), ("--data-license", self.data)):
            if given is not None and given not in KNOWN:
                near = get_close_matches(given.lower(), KNOWN, n=3, cutoff=0.4)
                hint = f"did you mean {' or '.join(near)}?" if near else "usual are apache-2.0, mit and cc-by-4.0."
                raise Mistake(f"{flag} {given} is none of the licences that the Hub knows; {hint} Any other one is called other.")
