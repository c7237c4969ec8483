"""The Content-Security-Policy of a page: a browser runs and loads nothing but the page's own.

The policy stands in the page itself and holds the sha256 of its styles and scripts. What else might
have got into the page, such as text that was not escaped, is neither run nor fetched.
"""

from __future__ import annotations

import base64
import hashlib
import re

_CHARSET = '<meta charset="utf-8">'


def with_policy(page: str) -> str:
    """Returns a page with a policy after its charset; pictures and sounds may be data: URLs only.

    Args:
      page: HTML whose styles stand in `<style>` and whose scripts in `<script>`, both without
        attributes. The policy forbids attributes `style` and `on...`.
    """
    rules = {
        "default-src": "'none'",
        "img-src": "data:",
        "media-src": "data:",
        "style-src": _hashes("style", page),
        "script-src": _hashes("script", page),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    policy = "; ".join(f"{name} {sources}" for name, sources in rules.items())
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return page.replace(_CHARSET, _CHARSET + meta, 1)


def _hashes(element: str, page: str) -> str:
    """Returns the policy's sources for a page's elements of a name: their sha256s, or 'none'."""
    contents = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digests = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in contents
    )
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
