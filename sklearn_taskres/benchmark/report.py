"""The report of ``benchmark accuracy``: means and standard deviations, as a table and a figure."""

import sys

import numpy as np

from .methods import METHODS


def write(lines, folder):
    """Write ``report.md`` and ``report.png``.

    Parameters
    ----------
    lines : list of dict
        Finished cells. Of several with one data set, method, shots and seed the last one counts.
    folder : Path
        Where to write.
    """
    if not lines:
        sys.exit(f"{folder} holds no finished cell yet. Pass --features FILE.npz ... first.")
    groups = _grouped(lines)
    data_sets = list(dict.fromkeys(data for data, _, _ in groups))
    sections = [_section(groups, data) for data in data_sets]
    if len(data_sets) > 1:
        sections.append(_average(groups, data_sets))
    text = "\n\n".join(["# Few-shot accuracy", _about(lines), *sections]) + "\n"
    (folder / "report.md").write_text(text, encoding="utf-8")
    _draw(groups, data_sets, folder / "report.png")


def _grouped(lines):
    """Cells by (data set, method, shots), each with a seed once."""
    last = {(c["data"], c["method"], c["shots"], c["seed"]): c for c in lines}
    groups: dict[tuple, list[dict]] = {}
    for (data, method, shots, _), cell in last.items():
        groups.setdefault((data, method, shots), []).append(cell)
    return groups


def _methods(groups):
    """Names of the methods that have cells, in the order of the registry, others last."""
    names = dict.fromkeys(method for _, method, _ in groups)
    return sorted(names, key=lambda name: [*METHODS, name].index(name))


def _shots(groups):
    return sorted({shots for _, _, shots in groups})


def _mean_and_std(cells):
    """Mean and sample standard deviation of the accuracy over seeds, in percent."""
    values = [100 * cell["accuracy"] for cell in cells]
    return np.mean(values), np.std(values, ddof=1) if len(values) > 1 else 0.0


def _about(lines):
    """Say what was measured with what; several entries mean that the tables mix them."""
    settings = [f"{c['data']}, file {c['digest']}, base norm {c['base_norm']:g}" for c in lines]
    machines = [
        ", ".join(f"{k} {v}" for k, v in c["machine"].items() if k != "date") for c in lines
    ]
    dates = sorted(cell["machine"]["date"] for cell in lines)
    facts = [*dict.fromkeys(settings), *dict.fromkeys(machines), f"{dates[0]} to {dates[-1]}"]
    return "\n".join(f"- {fact}" for fact in facts)


def _section(groups, data):
    mine = {key: cells for key, cells in groups.items() if key[0] == data}
    n_seeds = sorted({len(cells) for cells in mine.values()})
    seeds = str(n_seeds[0]) if len(n_seeds) == 1 else f"{n_seeds[0]} to {n_seeds[-1]}"
    accuracy = _table(mine, data, lambda cells: "{:.1f} ± {:.1f}".format(*_mean_and_std(cells)))
    seconds = _table(
        mine, data, lambda cells: f"{np.median([c['fit_seconds'] for c in cells]):.2f}"
    )
    parameters = _table(mine, data, lambda cells: f"{cells[-1]['n_parameters']:,}")
    return "\n\n".join(
        [
            f"## {data}",
            f"Test accuracy in %, mean ± standard deviation over seeds ({seeds} a cell), by shots:",
            accuracy,
            "Seconds to fit, median over seeds:",
            seconds,
            "Values that training tuned:",
            parameters,
        ]
    )


def _average(groups, data_sets):
    """Table of the mean over data sets of the mean accuracies, where every one of them has it."""
    means: dict[tuple, list] = {}
    for (_, method, shots), cells in groups.items():
        means.setdefault(("", method, shots), []).append(_mean_and_std(cells)[0])
    complete = {key: values for key, values in means.items() if len(values) == len(data_sets)}
    table = _table(complete, "", lambda values: f"{np.mean(values):.1f}")
    return f"## Average of the {len(data_sets)} data sets\n\n{table}"


def _table(groups, data, show):
    """Markdown table of methods by shots."""
    shots = _shots(groups)
    rows = [["method", *map(str, shots)], ["---", *["---:"] * len(shots)]]
    for method in _methods(groups):
        found = [groups.get((data, method, k)) for k in shots]
        rows.append([method, *[show(cells) if cells else "" for cells in found]])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _draw(groups, data_sets, path):
    """Draw accuracy against shots, a panel a data set, with a standard deviation as error bar."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        sys.exit(
            "report.md is written; report.png needs matplotlib. Install it with "
            "pip install 'sklearn-taskres[plots]'."
        )
    n_columns = min(3, len(data_sets))
    n_rows = -(-len(data_sets) // n_columns)
    figure = Figure(figsize=(1.5 + 4.5 * n_columns, 4 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for panel in panels[len(data_sets) :]:
        panel.remove()
    for panel, data in zip(panels, data_sets, strict=False):
        _draw_panel(panel, groups, data)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.savefig(path, dpi=150)


def _draw_panel(panel, groups, data):
    shots, methods = _shots(groups), _methods(groups)
    for i, method in enumerate(methods):
        there = [k for k in shots if (data, method, k) in groups]
        stats = [_mean_and_std(groups[data, method, k]) for k in there]
        panel.errorbar(
            [k * 1.02 ** (i - len(methods) / 2) for k in there],  # side by side, not on top
            [mean for mean, _ in stats],
            [std for _, std in stats],
            color=f"C{i % 10}",
            linestyle="-" if i < 10 else "--",
            marker="o",
            markersize=3,
            capsize=2,
            label=method,
        )
    panel.set_xscale("log", base=2)
    panel.set_xticks(shots, [str(k) for k in shots])
    panel.set(title=data, xlabel="images a class", ylabel="test accuracy in %")
    panel.grid(alpha=0.3)
