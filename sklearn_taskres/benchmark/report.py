"""The report of ``benchmark accuracy``: the paper's tables and figures as Markdown, CSV and PNG."""

import csv
import dataclasses
import re
import sys

import numpy as np

from . import published, report_tables
from .report_entries import Key, grouped, names, on_own_tests
from .report_figures import draw_figures, drawn_methods, file_names, where_parameters_are_compared

#: What the others are compared with, draw by draw.
_REFERENCE = "taskres-gda"
_BOLD = (
    "Accuracy in % on test images, mean ± sample standard deviation over seeds, if there are "
    "several. Bold: higher than every other of its column on each of at least two seeds."
)


def write_report(lines, folder):
    """Write ``report.md``, one CSV file per table, and two figures.

    Parameters
    ----------
    lines : list of dict
        Finished cells. Of several with one backbone, data set, test set, method, shots and seed the
        last one counts.
    folder : Path
        Where to write.
    """
    if not lines:
        sys.exit(
            f"{folder} holds no finished cell yet. Pass --data ROOT or --features FILE.npz ... "
            f"first."
        )
    groups = grouped(lines)
    tables, left_out = _tables(groups)
    sections = [_section(table, groups) for table in tables]
    counted = [cell for cells in groups.values() for cell in cells]
    parts = ["# Few-shot accuracy", _about(counted), _BOLD, _figures(groups), _contents(tables)]
    text = "\n\n".join([*parts, *sections, _left_out(left_out)]).rstrip() + "\n"
    (folder / "report.md").write_text(text, encoding="utf-8")
    _write_csv(tables, folder)
    _write_costs(groups, folder / "costs.csv")
    draw_figures(groups, folder)


def _tables(groups):
    """List the tables that have cells, and sentences on what lacks."""
    own = on_own_tests(groups)
    several = len(names(groups, "backbone")) > 1
    tables, left_out = [], []
    for backbone in names(groups, "backbone"):
        found, lacking = _tables_of(groups, own, backbone)
        suffix = f", {backbone or 'features'}" if several else ""
        tables += [_renamed(table, suffix) for table in found]
        prefix = f"{suffix[2:]}: " if several else ""
        left_out += [prefix + sentence for sentence in lacking]
    across = report_tables.backbones(own)
    if across is None:
        left_out.append(
            f"Backbones: run --backbones RN50 RN101 ViT-B-32 ViT-B-16 --shots "
            f"{report_tables.SHOTS}, two of them or more on one data set."
        )
    return [*tables, *([across] if across else [])], left_out


def _renamed(table, suffix):
    return dataclasses.replace(table, title=table.title + suffix)


def _tables_of(groups, own, backbone):
    """List the tables of one backbone, and sentences on what it lacks."""
    data_sets = names(own, "data", backbone=backbone)
    tables = [report_tables.few_shot(own, backbone, data) for data in data_sets]
    left_out = []
    optional = [
        (report_tables.gains(own, backbone), _why_no_gains(backbone)),
        (report_tables.domain_generalisation(groups, backbone), _GENERALISATION_LACKS),
        *(
            (report_tables.ablation(own, backbone, spec), _ablation_lacks(spec))
            for spec in report_tables.ABLATIONS
        ),
    ]
    if len(data_sets) > 1:
        optional.insert(0, (report_tables.few_shot_average(own, backbone), _AVERAGE_LACKS))
    for table, sentence in optional:
        if table is None:
            left_out.append(sentence)
        else:
            tables.append(table)
    return tables, left_out


_AVERAGE_LACKS = "Average over data sets: run one method at the same --shots on all of them."
_GENERALISATION_LACKS = (
    f"Domain generalisation: run --data-sets imagenet --methods "
    f"{' '.join(report_tables.GENERALISING)} --shots {report_tables.SHOTS} with ImageNet's "
    f"variants next to it in --data."
)


def _ablation_lacks(spec):
    return f"{spec.title}: run --methods {' '.join(spec.rows)} on one data set."


def _why_no_gains(backbone):
    reason = published.why_not_comparable(backbone)
    if reason:
        return f"Gains over zero-shot that were published: not comparable, since {reason}."
    wanted = "; ".join(gain.name for gain in published.GAINS)
    return f"Gains over zero-shot that were published: run zero-shot and any of: {wanted}."


def _about(lines):
    """Say what the lines that count were measured with; the tables mix what is listed."""
    settings: dict[str, dict] = {}
    for line in lines:
        name = f"{line.get('test') or line['data']} ({str(line.get('digest'))[:8]})"
        settings.setdefault(_setting(line), {})[name] = None
    machines = [
        ", ".join(f"{k} {v}" for k, v in c["machine"].items() if k != "date") for c in lines
    ]
    dates = sorted(cell["machine"]["date"] for cell in lines)
    facts = [f"{setting}: {', '.join(data)}" for setting, data in settings.items()]
    count = "1 line" if len(lines) == 1 else f"{len(lines)} lines"
    facts += [*dict.fromkeys(machines), f"{dates[0]} to {dates[-1]}, {count}"]
    return "\n".join(f"- {fact}" for fact in facts)


def _setting(line):
    shown = {
        "backbone": line.get("backbone") or "of the file",
        "base norm": line.get("base_norm"),
        "views": line.get("views"),
        "code": line.get("code"),
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items() if value is not None)


def _figures(groups):
    """Return the pictures of each backbone, with what they show."""
    own = on_own_tests(groups)
    parts = []
    for backbone in names(own, "backbone"):
        curves, parameters = file_names(own, backbone)
        whose = backbone or "embeddings from files"
        place = where_parameters_are_compared(own, backbone)
        parts += [
            f"![Accuracy against images per class]({curves})",
            f"Few-shot curves of {whose} (paper: Figure 3).{_not_drawn(own, backbone)}",
            f"![Accuracy against tuned values]({parameters})",
            f"Accuracy against the number of values that training tuned (paper: Figure 1), "
            f"{whose}: {place}.",
        ]
    return "\n\n".join(parts)


def _not_drawn(own, backbone):
    """Say which methods are in the tables alone."""
    there, drawn = names(own, "method", backbone=backbone), drawn_methods(own, backbone)
    lacking = [method for method in there if method not in drawn]
    return f" In the tables alone: {', '.join(lacking)}." if lacking else ""


def _contents(tables):
    """Return a list of links to the sections."""
    links = []
    for table in tables:
        label = table.title.replace("Average of the", "Average over")
        anchor = re.sub(r"[^\w\- ]", "", table.title.lower()).replace(" ", "-")
        links.append(f"- [{label}](#{anchor})")
    return "\n".join(links)


def _left_out(sentences):
    if not sentences:
        return ""
    return "## Not here yet\n\n" + "\n".join(f"- {sentence}" for sentence in sentences)


def _section(table, groups):
    """Return the heading, the notes and the table in Markdown."""
    parts = [f"## {table.title}", *table.notes]
    fits = "1 fit" if table.n_fits == 1 else f"{table.n_fits} fits"
    parts += [f"{fits} went in; seeds per entry: {table.seeds}.", _markdown(table)]
    if _is_one_data_set(table):
        parts += _costs(table, groups)
    return "\n\n".join(parts)


def _is_one_data_set(table):
    return table.name == "few_shot" and table.block["data"] != report_tables.AVERAGE


def _markdown(table):
    best = {column: table.best(column) for column in table.columns}
    rows = [
        [label, *(_shown(table, row, column, best[column] == row) for column in table.columns)]
        for row, label in table.rows.items()
    ]
    return _grid([table.head, *table.columns], rows)


def _grid(heads, rows):
    """Return a Markdown table whose first column is text and whose others are numbers."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def _shown(table, row, column, bold):
    entry = table.entries.get((row, column))
    if entry is None:
        return ""
    sign = "+" if table.is_gain else ""
    text = f"{entry.mean:{sign}.1f}"
    if entry.std is not None:
        text += f" ± {entry.std:.1f}"
    text = f"**{text}**" if bold else text
    return text if entry.published is None else f"{text} ({entry.published:{sign}.2f})"


def _costs(table, groups):
    """Return Markdown of the seconds and of the tuned values, by method and shots."""
    backbone, data = table.block["backbone"] or None, table.block["data"]
    tuned, seconds, losses, errors, differences = [], [], [], [], []
    for method in table.rows:
        keys = [Key(backbone, data, data, method, int(k)) for k in table.columns]
        cells = [groups.get(key) for key in keys]
        seconds.append([method, *[f"{_seconds(c):.2f}" if c else "" for c in cells]])
        tuned.append([method, *[f"{c[-1]['n_parameters']:,}" if c else "" for c in cells]])
        losses.append([method, *[_mean_of(c, "log_loss", "{:.2f}") for c in cells]])
        errors.append([method, *[_mean_of(c, "calibration_error", "{:.1%}") for c in cells]])
        differences.append([method, *[_difference(table, method, k) for k in table.columns]])
    heads = [table.head, *table.columns]
    return [
        f"Difference from {_REFERENCE} in points on the same draws, mean ± standard error:",
        _grid(heads, differences),
        "Log loss, mean over seeds:",
        _grid(heads, losses),
        "Expected calibration error (15 bins), mean over seeds:",
        _grid(heads, errors),
        "Seconds to fit, median over seeds:",
        _grid(heads, seconds),
        "Values that training tuned:",
        _grid(heads, tuned),
    ]


def _mean_of(cells, name, shape):
    """Mean over the cells in text; empty if a cell of an older version lacks it."""
    values = [cell.get(name) for cell in cells or ()]
    return shape.format(np.mean(values)) if values and None not in values else ""


def _difference(table, method, column):
    """Accuracy less the reference's, seed by seed: mean ± standard error in text."""
    ours, theirs = (table.entries.get((row, column)) for row in (method, _REFERENCE))
    seeds = sorted(ours.per_seed.keys() & theirs.per_seed.keys()) if ours and theirs else []
    if method == _REFERENCE or not seeds:
        return ""
    values = [ours.per_seed[seed] - theirs.per_seed[seed] for seed in seeds]
    text = f"{np.mean(values):+.1f}"
    return f"{text} ± {np.std(values, ddof=1) / len(values) ** 0.5:.1f}" if seeds[1:] else text


def _seconds(cells):
    return float(np.median([cell["fit_seconds"] for cell in cells]))


def _write_csv(tables, folder):
    """Write the tables of one name into one file, one row per entry."""
    by_name: dict[str, list] = {}
    for table in tables:
        by_name.setdefault(table.name, []).append(table)
    for name, group in by_name.items():
        rows = [row for table in group for row in _csv_rows(table)]
        _write_rows(folder / f"{name}.csv", rows)


def _csv_rows(table):
    best = {column: table.best(column) for column in table.columns}
    return [
        {
            **table.block,
            table.head: row,
            table.across: column,
            "mean": entry.mean,
            "std": entry.std,
            "n_seeds": len(entry.per_seed),
            "n_cells": len(entry.cells),
            "best": int(best[column] == row),
            "published": entry.published,
        }
        for (row, column), entry in table.entries.items()
    ]


def _write_costs(groups, path):
    rows = [
        {
            **{name: value or "" for name, value in key._asdict().items()},
            "fit_seconds": _seconds(cells),
            "n_parameters": cells[-1]["n_parameters"],
            "log_loss": _mean_of(cells, "log_loss", "{:.6g}"),
            "calibration_error": _mean_of(cells, "calibration_error", "{:.6g}"),
        }
        for key, cells in on_own_tests(groups).items()
    ]
    _write_rows(path, rows)


def _write_rows(path, rows):
    if not rows:
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
