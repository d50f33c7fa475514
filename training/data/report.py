"""`marquee data report`: a prepared data set on one page that needs nothing beside it."""

import html
import io
from contextlib import suppress
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from training.data.dataset import load
from training.data.explore import Exploration
from training.data.plots import PLOTS, Plot
from training.errors import UserError

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1e293b; margin: 2rem auto; max-width: 60rem;
       padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { font-size: 1.05rem; margin: 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; } figure p { margin: 0; color: #64748b; } svg { width: 100%; height: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; } td.number { text-align: right; }
"""


def write_report(path: str | Path, out: Path) -> int:
    """Write the page on the prepared data at `path` to the file `out`; returns its bytes.

    UserError when `path` is not prepared or `out` cannot be written.
    """
    return write_page(render(Exploration(load(path))), out)


def write_page(page: str, out: Path) -> int:
    """Put a page in the file `out`, as a whole or not at all; returns its bytes."""
    aside = out.with_name(f".{out.name}.new")
    try:
        aside.write_text(page, "utf-8")
        aside.replace(out)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise UserError(f"cannot write {out}: {error.strerror}") from error
    return len(page.encode())


def render(seen: Exploration) -> str:
    """The whole page."""
    data = seen.data
    title = f"{Path(data.path).name}: {data.n_events:,} events"
    plots = "\n".join(
        _plot(index, plot, seen) for index, plot in enumerate(PLOTS) if plot.applies(seen)
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{STYLE}</style>
<h1>{html.escape(title)}</h1>
{table(_overview(seen))}
<div class="plots">
{plots}
</div>
<h2>Cold start</h2>
{table([("", "users", "items"), *seen.cold])}
<p>Held-out events (the last fifth of each user's) of items without an event before:
{seen.cold_held_out:,}.</p>
<h2>Quality</h2>
{table([(f"{what}", f"{count:,} {of}") for what, count, of in seen.findings])}
</html>
"""


def _overview(seen: Exploration) -> list[tuple[object, ...]]:
    data, statistics = seen.data, seen.data.statistics
    rows: list[tuple[object, ...]] = [
        ("users", data.n_users),
        (f"{data.entity}s", data.n_items),
        ("of them with events", int((seen.events_per_item > 0).sum())),
        ("sparsity", f"{statistics['sparsity']:.4%}"),
        ("events in the most popular tenth", f"{seen.concentration(0.1):.0%}"),
    ]
    if rating := statistics["rating"]:
        rows.append(("rating", f"{rating['mean']:.2f} ± {rating['std']:.2f}"))
    if data.has_time:
        first, last = (seen.months[0][index] for index in (0, -1))
        rows.append(("time", f"{first} to {last}"))
    rows.append(("fingerprint", data.fingerprint[:16]))
    return rows


def _plot(index: int, plot: Plot, seen: Exploration) -> str:
    drawing = svg(plot.draw(seen), salt=str(index))
    caption = f"<h2>{html.escape(plot.title)}</h2><p>{html.escape(plot.text)}</p>"
    return f"<figure>{caption}{drawing}</figure>"


def svg(figure: Figure, salt: str) -> str:
    """The drawing alone, without the XML declaration; ids differ from those of other drawings."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawing = text.getvalue()
    return drawing[drawing.index("<svg") :]


def table(rows: list[tuple[object, ...]]) -> str:
    """Rows as an HTML table, numbers to the right."""

    def cell(value: object) -> str:
        if isinstance(value, int):
            return f'<td class="number">{value:,}</td>'
        return f"<td>{html.escape(str(value))}</td>"

    lines = ("".join(map(cell, row)) for row in rows)
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
