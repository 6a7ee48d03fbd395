"""The licence of a vendored package, by its metadata, in CycloneDX's terms."""

from __future__ import annotations

from typing import Any

# Classifiers that stand for one licence: "License :: OSI Approved :: BSD License" does not say which.
_SPDX = {
    "Apache Software License": "Apache-2.0",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Zope Public License": "ZPL-2.1",
    "zlib/libpng License": "Zlib",
}
_CLASSIFIER = "License :: "
_LONGEST_NAME = 80  # some packages have the whole text in `License`


def licences(metadata: Any) -> list[dict[str, Any]]:
    """The `licenses` of a component from a package's metadata (`packaging.metadata.RawMetadata`); empty where it says
    nothing.

    The SPDX expression counts first (PEP 639), then classifiers, then the free text, which may hold the whole licence.
    """
    if expression := metadata.get("license_expression"):
        return [{"expression": expression}]
    classifiers = [item for item in metadata.get("classifiers", ()) if item.startswith(_CLASSIFIER)]
    names = [name for name in (item.rpartition(" :: ")[2] for item in classifiers) if name != "OSI Approved"]
    if names:
        return [{"license": _named(name)} for name in names]
    text = str(metadata.get("license", "")).strip()
    return [{"license": {"name": text}}] if text and len(text) <= _LONGEST_NAME and "\n" not in text else []


def _named(name: str) -> dict[str, str]:
    return {"id": _SPDX[name]} if name in _SPDX else {"name": name}
