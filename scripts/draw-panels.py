#!/usr/bin/env python3
"""Draws what panels of the dashboards show in a Prometheus of the test suite: draw-panels.py PANELS.json OUT.svg

`make pictures` runs it. The figures come from a test (tests/observability/live.rs): a week of made-up history, with the
queries of the shipped dashboards. Nothing here knows Grafana; the picture says so itself.
"""

import json
import math
import re
import sys
import time
from xml.sax.saxutils import escape

COLUMNS = 2
WIDTH, HEIGHT, GAP, MARGIN = 640, 330, 18, 28
PLOT = {"left": 66, "right": 18, "top": 52, "bottom": 84}
MOST_SERIES = 6
FOOTER = "Drawn by scripts/draw-panels.py from a Prometheus of the test suite; not a screenshot of Grafana"
HEAD = "tunegate: what its dashboards ask, answered over a made-up week"
# Okabe and Ito's colours, which most people can tell apart, the yellow darkened for a light ground.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#5e5e5e"]
INK, PALE, LINE, GROUND, PAPER = "#1f2933", "#66727f", "#e4e7eb", "#f5f7fa", "#ffffff"
FONT = "font-family=\"'Inter','Helvetica Neue',Arial,sans-serif\""


# ---- numbers as people read them --------------------------------------------------------------------------------


def digits(value, step):
    """With as many decimals as tell neighbours on an axis apart."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{value:,.{min(decimals, 6)}f}"


def in_unit(value, unit, step):
    if value == 0:
        return "$0" if unit == "currencyUSD" else "0"
    if unit == "currencyUSD":
        return ("-$" if value < 0 else "$") + digits(abs(value), step)
    if unit == "percentunit":
        return digits(value * 100, step * 100) + " %"
    if unit == "s":
        for factor, name in [(1, "s"), (1e-3, "ms"), (1e-6, "µs")]:
            if abs(value) >= factor or name == "µs":
                return f"{digits(value / factor, step / factor)} {name}"
    if unit in ("bytes", "decbytes"):
        for factor, name in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")]:
            if abs(value) >= factor:
                return f"{digits(value / factor, step / factor)} {name}"
    suffix = {"reqps": "req/s", "ops": "/s", "cps": "/s"}.get(unit, "")
    if unit.startswith("suffix:"):
        suffix = unit.removeprefix("suffix:").strip()
    return f"{digits(value, step)} {suffix}".strip()


def ticks(least, most, about=4):
    """Round numbers from at or below the least to at or above the most."""
    span = (most - least) or abs(most) or 1
    rough = span / about
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
    return [at * step for at in range(first, last + 1)], step


# ---- pieces of SVG ----------------------------------------------------------------------------------------------


def text(x, y, words, size=12, colour=INK, anchor="start", weight="400"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{escape(words)}</text>')


def line(x1, y1, x2, y2, colour=LINE):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def shortened(words, most):
    return words if len(words) <= most else words[: most - 1] + "…"


# ---- one panel --------------------------------------------------------------------------------------------------


def name_of(one):
    """A label that is not there is nothing, as in Grafana."""
    return re.sub(r"\{\{\s*\w+\s*\}\}", "", one["name"]).strip() or "all"


def chosen(panel):
    """The series that show most, the greatest first, and how many are left out."""
    def height(one):
        return max(value for _, value in one["points"])

    shown = sorted((one for one in panel["series"] if one["points"]), key=height, reverse=True)
    return shown[:MOST_SERIES], max(0, len(shown) - MOST_SERIES)


def times(first, last):
    """Six-hourly moments, those at midnight named by their day."""
    quarter = 6 * 3600
    for at in range(math.ceil(first / quarter), math.floor(last / quarter) + 1):
        moment = time.gmtime(at * quarter)
        name = time.strftime("%a %d %b", moment) if moment.tm_hour == 0 else time.strftime("%H:%M", moment)
        yield at * quarter, name, moment.tm_hour == 0


def draw(panel, x, y):
    shown, left_out = chosen(panel)
    parts = [f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{PAPER}" stroke="{LINE}"/>']
    parts.append(text(x + 16, y + 25, panel["title"], 15, weight="600"))
    parts.append(text(x + WIDTH - 16, y + 25, panel["board"].removeprefix("tunegate / "), 11, PALE, "end"))
    left, right = x + PLOT["left"], x + WIDTH - PLOT["right"]
    top, bottom = y + PLOT["top"], y + HEIGHT - PLOT["bottom"]
    points = [point for one in shown for point in one["points"]]
    if not points:
        return "\n".join([*parts, text((left + right) / 2, (top + bottom) / 2, "no points", 13, PALE, "middle")])
    values = [value for _, value in points]
    first, last = min(at for at, _ in points), max(at for at, _ in points)
    marks, step = ticks(min(0, *values), max(values))
    low, high = marks[0], marks[-1]

    def across(at):
        return left + (at - first) / ((last - first) or 1) * (right - left)

    def up(value):
        return bottom - (value - low) / ((high - low) or 1) * (bottom - top)

    for mark in marks:
        parts.append(line(left, up(mark), right, up(mark)))
        parts.append(text(left - 8, up(mark) + 4, in_unit(mark, panel["unit"], step), 11, PALE, "end"))
    for at, name, is_day in times(first, last):
        parts.append(line(across(at), bottom, across(at), bottom + (7 if is_day else 4), PALE))
        if across(at) < right - 14:
            parts.append(text(across(at), bottom + 19, name, 11, INK if is_day else PALE, "middle"))
    for one, colour in zip(shown, COLOURS):
        path = "M" + " L".join(f"{across(at):.1f} {up(value):.1f}" for at, value in one["points"])
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-linejoin="round"/>')
    parts += legend(panel, shown, left_out, step, left, right, bottom + 42)
    return "\n".join(parts)


def legend(panel, shown, left_out, step, left, right, y):
    """Names with their newest values, in three columns."""
    column = (right - left) / 3
    for at, (one, colour) in enumerate(zip(shown, COLOURS)):
        x, row = left + at % 3 * column, y + at // 3 * 18
        newest = in_unit(one["points"][-1][1], panel["unit"], step / 10)
        yield f'<rect x="{x:.1f}" y="{row - 8:.1f}" width="14" height="3.5" rx="1.5" fill="{colour}"/>'
        room = max(6, 25 - len(newest))
        yield text(x + 20, row, f'{shortened(name_of(one), room)}', 11)
        yield text(x + column - 10, row, newest, 11, PALE, "end")
    if left_out:
        yield text(right, y - 24 + 18 * 3, f"and {left_out} more", 10, PALE, "end")


def picture(panels):
    rows = math.ceil(len(panels) / COLUMNS)
    width = 2 * MARGIN + COLUMNS * WIDTH + (COLUMNS - 1) * GAP
    height = 58 + rows * HEIGHT + (rows - 1) * GAP + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" {FONT}>',
        f'<rect width="{width}" height="{height}" fill="{GROUND}"/>',
        text(MARGIN, 38, HEAD, 18, weight="600"),
    ]
    for at, panel in enumerate(panels):
        parts.append(draw(panel, MARGIN + at % COLUMNS * (WIDTH + GAP), 58 + at // COLUMNS * (HEIGHT + GAP)))
    parts.append(text(width / 2, height - 18, FOOTER, 12, PALE, "middle"))
    return "\n".join([*parts, "</svg>", ""])


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__.split("\n")[0])
    with open(sys.argv[1]) as file:
        panels = json.load(file)["panels"]
    with open(sys.argv[2], "w") as file:
        file.write(picture(panels))


if __name__ == "__main__":
    main()
