"""The page that all of ours are: one HTML file that needs no other and no network.

All text on it goes through ``visible``. Its content security policy lets it load nothing and run no
script but the one that it was made with, which is named by its digest. page.css is its style.
"""

from __future__ import annotations

import base64
import hashlib
import html
from importlib import resources

from hb_tta.report.cells import spelled_out


def document(
    title: str,
    body: str,
    *,
    lead: str = "",
    script: str = "",
    data: str = "",
    style: str = "",
    files_beside: bool = False,
    asks_server: bool = False,
) -> str:
    """A whole page, UTF-8.

    Args:
        title: plain text; it heads the page, too.
        body: HTML, its texts escaped.
        lead: plain text below the title.
        script: JavaScript that the page may run.
        data: HTML before the script, for what it reads.
        style: CSS behind page.css.
        files_beside: whether it shows pictures that lie beside it, too.
        asks_server: whether its script may ask the server that the page is from.
    """
    return _PAGE.format(
        title=visible(title),
        lead=f'<p class="lead">{visible(lead)}</p>' if lead else "",
        policy=_policy(script, files_beside, asks_server),
        style=part("page.css") + style,
        body=body,
        scripts=f"{data}\n<script>{script}</script>\n" if script else "",
    )


def visible(text: str) -> str:
    """Escape ``text`` for HTML; what a browser hides is spelled out."""
    return html.escape(spelled_out(text))


def part(name: str) -> str:
    """A file beside this one."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(script: str, files_beside: bool, asks_server: bool) -> str:
    pictures = "data: 'self'" if files_beside else "data:"
    rules = f"default-src 'none'; img-src {pictures}; style-src 'unsafe-inline'"
    rules += "; connect-src 'self'" if asks_server else ""
    if not script:
        return rules
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"{rules}; script-src 'sha256-{digest}'"


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{title}</h1>{lead}</header>
<main>
{body}
</main>
{scripts}</body>
</html>
"""
