"""A fit as a card in a notebook: HTML without scripts, styles of its own or anything from elsewhere.

Colours are those of the text around it, so that it can be read on light and dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from daskmix.progress.view import DONE, FAILED, RUNNING, View, facts

WIDTH, HEIGHT = 160, 28
SIGNS = {DONE: "✓", FAILED: "✗"}
FRAME = (
    "border:1px solid rgba(128,128,128,.6);border-radius:6px;padding:8px 12px;margin:2px 0;max-width:44em;"
    "color:var(--jp-content-font-color1,inherit);font-size:13px;line-height:1.5"
)
BAR = "height:6px;border-radius:3px;margin:6px 0;background:rgba(128,128,128,.3);overflow:hidden"
FACTS = "display:flex;flex-wrap:wrap;gap:0 1.5em"


def headline(view: View) -> str:
    """What is fitted, and how that stands."""
    passes = f" after {view.passes} pass{'es' * (view.passes != 1)}" if view.outcome != RUNNING else ""
    why = f": {view.why}" if view.why else ""
    return f"{view.title}, {view.outcome}{passes}{why}"


def as_text(view: View) -> str:
    """The same where there is no HTML."""
    said = ", ".join(f"{name} {value}" for name, value in facts(view).items())
    return f"{headline(view)}; {said}"


def as_html(view: View) -> str:
    """The card."""
    named = "".join(
        f'<span><span style="opacity:.75">{escape(name)}</span> {escape(value)}</span> '
        for name, value in facts(view).items()
    )
    objectives, gaps = view.course()
    measure = view.last.measure if view.last else ""
    lines = sparkline(objectives, measure or "objective") + sparkline([math.log10(gap) for gap in gaps], "log10 of gap")
    sign = f'<span aria-hidden="true">{SIGNS[view.outcome]}</span> ' if view.outcome in SIGNS else ""
    return (
        f'<div role="group" aria-label="{escape(headline(view))}" style="{FRAME}">'
        f"<div>{sign}<strong>{escape(headline(view))}</strong></div>"
        f"{_bar(view)}"
        f'<div style="{FACTS}">{named}</div>'
        f'<div style="{FACTS}">{lines}</div>'
        "</div>"
    )


def _bar(view: View) -> str:
    """How much of the pass under way is done."""
    going = view.going
    if going is None or view.outcome != RUNNING:
        return ""
    return (
        f'<div role="progressbar" aria-label="parts of pass {view.passes + 1}" aria-valuemin="0" '
        f'aria-valuemax="{going.total}" aria-valuenow="{going.done}" style="{BAR}">'
        f'<div style="height:100%;width:{100 * view.share:.1f}%;background:currentColor"></div></div>'
    )


def sparkline(values: Sequence[float], name: str) -> str:
    """A small curve, with its ends in words; nothing for less than two values."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    across, up = (WIDTH - 4) / (len(values) - 1), (HEIGHT - 4) / ((high - low) or 1.0)
    points = " ".join(f"{2 + i * across:.1f},{HEIGHT - 2 - (value - low) * up:.1f}" for i, value in enumerate(values))
    told = escape(f"{name} over {len(values)} passes, from {values[0]:.6g} to {values[-1]:.6g}")
    return (
        f'<span><span style="opacity:.75">{escape(name)}</span> '
        f'<svg role="img" aria-label="{told}" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'style="vertical-align:middle"><title>{told}</title>'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"></polyline></svg></span>'
    )
