"""The Content-Security-Policy of a page: a browser runs and loads nothing but the page's own.

The policy stands in the page itself and holds the sha256 of its styles and scripts. What else might
have got into the page, such as text that was not escaped, is neither run nor fetched.
"""

from __future__ import annotations

import base64
import hashlib
import re

_CHARSET = '<meta charset="utf-8">'


def with_policy(page: str, trusted: str, scripts: str = "", blobs: bool = False) -> str:
    """Returns a page with a policy after its charset; pictures and sounds may be data: URLs only.

    Args:
      page: the HTML of the page. The policy forbids attributes `style` and `on...` in it.
      trusted: the page's styles, in `<style>`, and scripts, in `<script>` or `<script
        type="module">` without other attributes, such as the template of the page. It must hold
        no text of others, because what is in it may run.
      scripts: what else may run: sources of the policy's `script-src`, such as `'wasm-unsafe-eval'`
        for WebAssembly.
      blobs: whether pictures and sounds may also be blob: URLs, which a script of the page makes.
    """
    media = "data: blob:" if blobs else "data:"
    sources = _hashes("script", trusted)
    rules = {
        "default-src": "'none'",
        "img-src": media,
        "media-src": media,
        "style-src": _hashes("style", trusted),
        "script-src": f"{sources} {scripts}" if scripts else sources,
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    policy = "; ".join(f"{name} {sources}" for name, sources in rules.items())
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return page.replace(_CHARSET, _CHARSET + meta, 1)


def _hashes(element: str, html: str) -> str:
    """Returns the policy's sources for the elements of a name: their sha256s, or 'none'."""
    contents = re.findall(f'<{element}(?: type="module")?>(.*?)</{element}>', html, re.DOTALL)
    digests = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in contents
    )
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
