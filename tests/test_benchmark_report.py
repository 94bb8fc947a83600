"""The report of the accuracy benchmark: tables, published figures, CSV, Markdown, figures."""

import csv
import itertools
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread

from sklearn_taskres.benchmark import published, report, report_figures, report_tables
from sklearn_taskres.benchmark.methods import METHODS
from sklearn_taskres.benchmark.report_entries import TARGETS, Key, grouped, names, on_own_tests
from sklearn_taskres.inspection import FewShotCurveDisplay, few_shot_curve

ELEVEN = published.AVERAGED
FOUR = ("RN50", "RN101", "ViT-B-32", "ViT-B-16")


def line(data="dtd", method="taskres", shots=16, seed=1, accuracy=0.5, **changes):
    """A finished cell."""
    return {
        "data": data, "test": data, "backbone": "RN50", "digest": "0123456789", "base_norm": None,
        "method": method, "parameters": {}, "shots": shots, "seed": seed, "views": 10,
        "version": "0", "accuracy": accuracy, "fit_seconds": 0.25, "n_train": 3, "n_test": 4,
        "n_parameters": 0 if method == "zero-shot" else 1000 * len(method), "chosen": {},
        "machine": {"date": "2026-01-01 00:00", "processor": "made up"},
    } | changes  # fmt: skip


def made_up(data_sets, methods, shots=(1, 16), seeds=(1, 2), backbone="RN50", random_state=0):
    """Lines of all combinations, with random accuracies."""
    rng = np.random.default_rng(random_state)
    combinations = itertools.product(data_sets, methods, shots, seeds)
    return [
        line(*each, accuracy=float(rng.uniform(0.2, 0.9)), backbone=backbone)
        for each in combinations
    ]


def variants(method, seed=1, backbone="RN50", tests=TARGETS, shots=16):
    """Lines of a fit to ImageNet, tested on its variants."""
    return [
        line("imagenet", method, shots, seed, 0.1 + 0.1 * i, test=test, backbone=backbone)
        for i, test in enumerate(tests)
    ]


def tables_of(lines):
    """All tables of the report, by title."""
    tables, _ = report._tables(grouped(lines))
    return {table.title: table for table in tables}


def only(lines, **fixed):
    """Accuracies in % of the lines with these values, computed without the report."""
    return [
        100 * each["accuracy"]
        for each in lines
        if all(each[name] == value for name, value in fixed.items())
    ]


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A report of everything on RN50 and of less on another backbone: its folder and lines."""
    lines = made_up(ELEVEN, METHODS)
    lines += made_up(("dtd", "imagenet"), ("zero-shot", "taskres"), backbone="ViT-B-16")
    for method, seed in itertools.product(report_tables.GENERALISING, (1, 2)):
        lines += variants(method, seed)
    folder = tmp_path_factory.mktemp("report")
    report.write_report(lines, folder)
    return folder, lines


# values ---------------------------------------------------------------------------------------

some_cells = st.dictionaries(
    st.tuples(
        st.sampled_from(["dtd", "food101", "own"]),
        st.sampled_from(["zero-shot", "taskres", "gda"]),
        st.sampled_from([1, 16]),
        st.integers(1, 3),
    ),
    st.floats(0, 1),
    min_size=1,
)


@settings(max_examples=150, deadline=None)
@given(some_cells)
def test_entries_are_what_a_naive_recomputation_gives(cells):
    """Mean and deviation of each data set; the average, just if all data sets have the cell."""
    lines = [line(*place, accuracy=accuracy) for place, accuracy in cells.items()]
    groups, data_sets = grouped(lines), {place[0] for place in cells}
    average = report_tables.few_shot_average(groups, "RN50")
    for method, shots in itertools.product(("zero-shot", "taskres", "gda"), (1, 16)):
        means = []
        for data in data_sets:
            values = only(lines, data=data, method=method, shots=shots)
            entry = report_tables.few_shot(groups, "RN50", data).entries.get((method, str(shots)))
            assert (entry is None) == (not values)
            if values:
                means.append(sum(values) / len(values))
                assert entry.mean == pytest.approx(means[-1])
                assert len(entry.cells) == len(entry.per_seed) == len(values)
            if len(values) > 1:
                squares = sum((value - means[-1]) ** 2 for value in values)
                assert entry.std == pytest.approx((squares / (len(values) - 1)) ** 0.5, abs=1e-9)
        entry = average and average.entries.get((method, str(shots)))
        assert (entry is not None) == (len(means) == len(data_sets))
        if entry:
            assert entry.mean == pytest.approx(sum(means) / len(means))


def test_the_deviation_of_an_average_is_over_seeds_that_all_data_sets_have():
    """Data sets are averaged seed by seed; a seed that one lacks counts in the mean alone."""
    lines = [
        line("dtd", seed=1, accuracy=0.1),
        line("dtd", seed=2, accuracy=0.3),
        line("dtd", seed=3, accuracy=0.8),
        line("food101", seed=1, accuracy=0.5),
        line("food101", seed=2, accuracy=0.6),
    ]
    (entry,) = report_tables.few_shot_average(grouped(lines), "RN50").entries.values()
    assert entry.per_seed == pytest.approx({1: 30, 2: 45})
    assert entry.std == pytest.approx(15 / 2**0.5)
    assert entry.mean == pytest.approx((40 + 55) / 2)
    assert len(entry.cells) == 5


def test_the_last_line_of_a_cell_counts_and_old_lines_are_read():
    """Version, views and base norm do not part cells; test and backbone may be lacking."""
    old = line(accuracy=0.2, backbone=None)
    for name in ("test", "backbone", "views"):
        del old[name]
    new = line(accuracy=0.7, backbone=None, views=0, base_norm=10.0, version="2")
    groups = grouped([old, new])
    assert list(groups) == [Key(None, "dtd", "dtd", "taskres", 16)]
    assert groups[Key(None, "dtd", "dtd", "taskres", 16)] == [new]
    assert len(grouped([old, line()])) == 2


def test_seeds_of_several_settings_are_told():
    """A mean over seeds of other views or another version says so, one of one setting doesn't."""
    lines = [line(seed=1), line(seed=2, views=0, version="1"), line(seed=1, shots=1)]
    lines += [line(seed=2, shots=1), line(seed=2, views=0, shots=1), line(seed=2, shots=1)]
    table = report_tables.few_shot(grouped(lines), "RN50", "dtd")
    (note,) = table.notes
    assert note.startswith("Mixed: the seeds of taskres at 16 differ in views, version.")


def test_names_come_in_the_order_of_the_papers():
    """Methods as registered, data sets as listed, the published backbone first, others last."""
    lines = [
        line("own", "retired", 4, backbone="ViT-B-16"),
        line("dtd", "taskres", 16),
        line("imagenet", "zero-shot", 1),
    ]
    groups = grouped(lines)
    assert names(groups, "method") == ["zero-shot", "taskres", "retired"]
    assert names(groups, "data") == ["imagenet", "dtd", "own"]
    assert names(groups, "backbone") == ["RN50", "ViT-B-16"]
    assert names(groups, "shots") == [1, 4, 16]
    assert names(groups, "method", backbone="RN50", shots=1) == ["zero-shot"]


# bold -----------------------------------------------------------------------------------------


def best_of(*rows):
    """The best of one column, given accuracies by seed for each method."""
    methods = list(METHODS)
    lines = [
        line("dtd", methods[i], seed=seed, accuracy=accuracy)
        for i, row in enumerate(rows)
        for seed, accuracy in row.items()
    ]
    best = report_tables.few_shot(grouped(lines), "RN50", "dtd").best("16")
    return None if best is None else methods.index(best)


def test_bold_needs_a_win_on_each_of_two_seeds():
    """A higher mean alone, a tie, one seed, no common seeds or no other method are not enough."""
    assert best_of({1: 0.5, 2: 0.6}, {1: 0.4, 2: 0.5}) == 0
    assert best_of({1: 0.4, 2: 0.5, 3: 0.1}, {1: 0.5, 2: 0.6, 3: 0.2}, {1: 0.3, 2: 0.3}) == 1
    assert best_of({1: 0.9, 2: 0.4}, {1: 0.4, 2: 0.5}) is None
    assert best_of({1: 0.5, 2: 0.6}, {1: 0.5, 2: 0.5}) is None
    assert best_of({1: 0.9}, {1: 0.4}) is None
    assert best_of({1: 0.9, 2: 0.9}, {3: 0.4, 4: 0.4}) is None
    assert best_of({1: 0.9, 2: 0.9}) is None


# published figures ----------------------------------------------------------------------------


def test_published_averages_stand_beside_ours_on_the_same_setting(everything):
    """RN50 on all 11 data sets has them, and only the methods and shots that were published."""
    _, lines = everything
    table = tables_of(lines)["Average of the 11 data sets, RN50"]
    shown = {place: e.published for place, e in table.entries.items() if e.published is not None}
    assert shown == {
        (method, str(k)): published.AVERAGES[method][k]
        for method in published.AVERAGES
        for k in (1, 16)
    }
    assert shown["gda", "1"] == 62.19
    assert "10 views" in table.notes[1]


@pytest.mark.parametrize(
    ("data_sets", "backbone", "reason"),
    [
        (ELEVEN[:-1], "RN50", "these lack ucf101"),
        ((*ELEVEN, "own"), "RN50", "over others as well"),
        (ELEVEN, "ViT-B-16", "made with RN50, these with ViT-B-16"),
        (ELEVEN, "RN50:cc12m", "made with RN50, these with RN50:cc12m"),
        (ELEVEN, None, "a file that does not name its backbone"),
    ],
)
def test_published_averages_are_withheld_with_the_reason(data_sets, backbone, reason, tmp_path):
    """On another setting none is shown, and the report says why they are not comparable."""
    lines = made_up(data_sets, ("zero-shot", "gda"), (16,), backbone=backbone)
    (table,) = (t for t in tables_of(lines).values() if t.title.startswith("Average"))
    assert all(entry.published is None for entry in table.entries.values())
    assert "not comparable" in table.notes[0]
    assert reason in table.notes[0]
    assert "58.89" not in "".join(report._section(t, grouped(lines)) for t in [table])


def test_a_hole_in_one_of_the_data_sets_takes_its_published_figure_away():
    """An average that can't be taken over all 11 data sets isn't shown, published or not."""
    lines = [
        each
        for each in made_up(ELEVEN, ("zero-shot", "gda"), (16,))
        if (each["data"], each["method"]) != ("eurosat", "gda")
    ]
    table = tables_of(lines)["Average of the 11 data sets"]
    assert list(table.entries) == [("zero-shot", "16")]


def test_gains_are_paired_by_seed_and_say_what_lacks():
    """Ours is the mean over seeds of the difference to zero-shot on the same seed."""
    lines = [
        line("dtd", "zero-shot", 1, seed=1, accuracy=0.40),
        line("dtd", "zero-shot", 1, seed=2, accuracy=0.42),
        line("dtd", "taskres", 1, seed=1, accuracy=0.50),
        line("dtd", "taskres", 1, seed=2, accuracy=0.46),
        line("dtd", "taskres", 1, seed=3, accuracy=0.99),
    ]
    table = tables_of(lines)["Gains over zero-shot that were published, in points"]
    (entry,) = table.entries.values()
    assert (entry.mean, entry.std) == pytest.approx((7, 6 / 2**0.5))
    assert entry.published == 7.85
    assert "taskres, eurosat, 1 shot" in table.notes[-1]
    assert "average of the 11" in table.notes[-1]
    assert "16 shots (published averages run over 11 data sets, and these lack" in table.notes[-1]
    assert "taskres, eurosat, 1 shot (cells lack)" in table.notes[-1]
    assert "| taskres, dtd, 1 shot | +7.0 ± 4.2 (+7.85) |" in report._section(table, {})
    _, left_out = report._tables(grouped([each | {"backbone": "RN101"} for each in lines]))
    assert any("not comparable, since published figures were made with RN50" in s for s in left_out)


# the paper's tables ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling", [str, lambda t: t.replace("_", "-"), lambda t: t.replace("v2", "-v2")]
)
def test_domain_generalisation_has_source_targets_and_their_average(spelling):
    """16 shots of ImageNet only; the average needs all four targets."""
    lines = [line("imagenet", "taskres", accuracy=0.6), *variants("taskres")]
    lines += [line("imagenet", "coop", accuracy=0.5), *variants("coop", tests=["imagenet_a"])]
    lines += [*variants("zero-shot", shots=4), *variants("gda")]
    lines = [each | {"test": spelling(each["test"])} for each in lines]
    table = tables_of(lines)["Domain generalisation (paper: Table 1, believed)"]
    means = {place: entry.mean for place, entry in table.entries.items()}
    assert means == pytest.approx(
        {
            ("taskres", "ImageNet (source)"): 60,
            ("taskres", "V2"): 10,
            ("taskres", "Sketch"): 20,
            ("taskres", "A"): 30,
            ("taskres", "R"): 40,
            ("taskres", "target average"): 25,
            ("coop", "ImageNet (source)"): 50,
            ("coop", "A"): 10,
        }
    )


def test_variants_stay_out_of_few_shot_tables():
    """What was tested on another data set counts for domain generalisation alone."""
    lines = [line("imagenet", "taskres", accuracy=0.6), *variants("taskres")]
    assert list(on_own_tests(grouped(lines))) == [
        Key("RN50", "imagenet", "imagenet", "taskres", 16)
    ]
    table = tables_of(lines)["imagenet"]
    assert [entry.mean for entry in table.entries.values()] == pytest.approx([60])


def test_only_variants_make_a_report(tmp_path):
    """ImageNet's own test is not needed."""
    report.write_report(variants("taskres"), tmp_path)
    assert (
        "| taskres |  | 10.0 | 20.0 | 30.0 | 40.0 | 25.0 |" in (tmp_path / "report.md").read_text()
    )


@pytest.mark.parametrize("spec", report_tables.ABLATIONS, ids=lambda spec: spec.name)
def test_an_ablation_compares_its_variants_on_the_same_data_sets(spec):
    """A column averages over data sets that all of its rows have, and says which."""
    lines = made_up(("dtd", "eurosat"), spec.rows)
    hole = list(spec.rows)[-1]
    lines = [x for x in lines if (x["data"], x["method"], x["shots"]) != ("eurosat", hole, 1)]
    table = report_tables.ablation(grouped(lines), "RN50", spec)
    assert table.rows == spec.rows
    for method in spec.rows:
        one = only(lines, method=method, shots=1, data="dtd")
        assert table.entries[method, "1"].mean == pytest.approx(np.mean(one))
        both = only(lines, method=method, shots=16)
        assert table.entries[method, "16"].mean == pytest.approx(np.mean(both))
    assert table.notes == ["Averaged over dtd (shots 1); dtd, eurosat (shots 16)."]


@pytest.mark.parametrize("spec", report_tables.ABLATIONS, ids=lambda spec: spec.name)
def test_an_ablation_without_variants_is_left_out_with_what_to_run(spec):
    """zero-shot and taskres alone are not an ablation; with one variant, the rest is named."""
    common = [method for method in spec.rows if method not in report_tables.ABLATION_ONLY]
    variant = next(method for method in spec.rows if method in report_tables.ABLATION_ONLY)
    lines = made_up(("dtd",), {*common, "zero-shot"})
    tables, left_out = report._tables(grouped(lines))
    assert spec.title not in {table.title for table in tables}
    assert any(f"run --methods {' '.join(spec.rows)}" in sentence for sentence in left_out)
    some = made_up(("dtd",), [variant, *common[:1]])
    table = report_tables.ablation(grouped(some), "RN50", spec)
    assert set(table.rows) == {variant, *common[:1]}
    lacking = [method for method in spec.rows if method not in table.rows]
    assert table.notes[1:] == ([f"No cells yet: --methods {' '.join(lacking)}."] if lacking else [])


def test_every_method_of_a_table_is_registered():
    """What the report tells to run can be run."""
    named = {*report_tables.GENERALISING, *published.AVERAGES}
    named |= {gain.method for gain in published.GAINS}
    named |= {method for spec in report_tables.ABLATIONS for method in spec.rows}
    assert named <= set(METHODS)


def test_backbones_are_compared_on_what_all_of_them_have():
    """Data sets that one backbone lacks, other shots and files without a backbone stay out."""
    lines = made_up(("dtd", "eurosat"), ("zero-shot", "taskres"), backbone="RN50")
    lines += made_up(("dtd",), ("taskres",), backbone="ViT-B-16", random_state=1)
    lines += made_up(("dtd",), ("taskres",), backbone=None, random_state=2)
    table = tables_of(lines)["Backbones (paper: Table 6, believed)"]
    assert table.columns == ["RN50", "ViT-B-16"]
    assert table.notes == ["16 images per class, averaged over dtd."]
    assert list(table.entries) == [
        ("zero-shot", "RN50"),
        ("taskres", "RN50"),
        ("taskres", "ViT-B-16"),
    ]
    for (method, backbone), entry in table.entries.items():
        found = only(lines, data="dtd", method=method, backbone=backbone, shots=16)
        assert entry.mean == pytest.approx(np.mean(found))
    assert report_tables.backbones(grouped(lines[:8])) is None


# files ----------------------------------------------------------------------------------------


def test_csv_files_hold_the_tables(everything):
    """Each entry is a row that parses back to it; a table's blocks share one file."""
    folder, lines = everything
    tables = tables_of(lines).values()
    assert {table.name for table in tables} >= {spec.name for spec in report_tables.ABLATIONS}
    for name in {table.name for table in tables}:
        with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            rows = iter(list(csv.DictReader(file)))
        for table in (table for table in tables if table.name == name):
            for (method, column), entry in table.entries.items():
                row = next(rows)
                assert {
                    **table.block,
                    table.head: method,
                    table.across: column,
                }.items() <= row.items()
                assert float(row["mean"]) == entry.mean
                assert (float(row["std"]) if row["std"] else None) == entry.std
                assert int(row["n_cells"]) == len(entry.cells)
                assert int(row["best"]) == (table.best(column) == method)
                assert row["published"] == ("" if entry.published is None else str(entry.published))
        assert next(rows, None) is None
    with (folder / "costs.csv").open(newline="", encoding="utf-8") as file:
        costs = list(csv.DictReader(file))
    assert len(costs) == len(on_own_tests(grouped(lines)))
    assert {row["fit_seconds"] for row in costs} == {"0.25"}


def test_markdown_is_well_formed(everything):
    """Rows are as long as their heads, links have targets, pictures are there, all tables too."""
    folder, lines = everything
    text = (folder / "report.md").read_text()
    heads = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert heads == [*tables_of(lines), "Not here yet"]
    anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
    assert len(re.findall(r"\]\(#(.*?)\)", text)) == len(heads) - 1
    assert set(re.findall(r"\]\(#(.*?)\)", text)) <= anchors
    pictures = re.findall(r"!\[.*\]\((.*)\)", text)
    assert len(pictures) == 4
    assert all((folder / picture).exists() for picture in pictures)
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = block.splitlines()
        assert re.fullmatch(r"\| --- \|( ---: \|)+", rows[1])
        assert len({row.count("|") for row in rows}) == 1
    assert text.endswith("\n")
    assert "nan" not in text


def test_markdown_shows_deviation_published_and_bold():
    """An entry is a mean and its deviation, bold if best, with the published in parentheses."""
    lines = [
        line(data, method, 16, seed, accuracy + 0.01 * seed)
        for data in ELEVEN
        for method, accuracy in (("zero-shot", 0.5), ("gda", 0.7))
        for seed in (1, 2, 3)
    ]
    section = report._section(tables_of(lines)["Average of the 11 data sets"], {})
    assert "| zero-shot | 52.0 ± 1.0 (58.89) |" in section
    assert "| gda | **72.0 ± 1.0** (76.05) |" in section
    assert "66 fits went in; seeds per entry: 3." in section


def test_a_fit_counts_once_however_often_it_was_tested():
    """One fit of ImageNet is five lines of domain generalisation."""
    lines = [line("imagenet", "taskres", accuracy=0.6), *variants("taskres")]
    table = tables_of(lines)["Domain generalisation (paper: Table 1, believed)"]
    assert "\n1 fit went in; seeds per entry: 1." in report._section(table, {})


def test_one_seed_has_no_deviation():
    """A single fit says nothing about how much fits differ."""
    section = report._section(tables_of([line()])["dtd"], grouped([line()]))
    assert "| taskres | 50.0 |" in section


def test_published_choices_are_said_as_they_are():
    """Tip-Adapter-F's figures chose an epoch on the test set; our model is the last epoch's."""
    assert "Tip-Adapter-F's chose its epoch on the test set" in published.AVERAGES_SOURCE
    assert "ours is the model of the last epoch" in published.AVERAGES_SOURCE


def test_the_head_is_about_the_lines_that_count(tmp_path):
    """A line that another replaced is not listed; the digest of the code is."""
    old = line(code="0ld", machine={"date": "2025-01-01", "cores": 1})
    report.write_report([old, line(code="new", accuracy=0.6)], tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "- backbone RN50, views 10, code new: dtd (01234567)\n- processor made up\n" in text
    assert "2026-01-01 00:00 to 2026-01-01 00:00, 1 line\n" in text
    assert "0ld" not in text


def test_what_is_not_drawn_is_named(tmp_path):
    """Variants of ablations are in the tables alone, unless there is nothing else to draw."""
    report.write_report(made_up(("dtd",), ("zero-shot", "taskres", "taskres-image")), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "(paper: Figure 3). In the tables alone: taskres-image.\n" in text
    report.write_report(made_up(("dtd",), ("taskres-image",)), tmp_path)
    assert "(paper: Figure 3).\n" in (tmp_path / "report.md").read_text()


def test_a_bar_in_a_name_does_not_part_a_cell():
    """Names are escaped in Markdown."""
    table = tables_of([line("a|b", "c|d")])["a|b"]
    assert r"| c\|d |" in report._section(table, grouped([line("a|b", "c|d")]))


def test_several_settings_are_all_named():
    """Two machines, views or files show in the head of the report."""
    text = report._about([line(), line(views=0, digest="abc", machine={"date": "x", "cores": 2})])
    assert "backbone RN50, views 10: dtd (01234567)" in text
    assert "backbone RN50, views 0: dtd (abc)" in text
    assert "- processor made up\n- cores 2" in text


# figures --------------------------------------------------------------------------------------


def test_figures_are_written_for_each_backbone(everything):
    """They are pictures with something on them."""
    folder, _ = everything
    for name in ("report", "parameters", "report-ViT-B-16", "parameters-ViT-B-16"):
        assert imread(folder / f"{name}.png").std() > 0.05


@pytest.fixture
def figures(monkeypatch, tmp_path):
    """Figures that drawing some lines gives, by file name, instead of files."""

    def drawn(lines):
        found = {}
        with monkeypatch.context() as patch:
            patch.setattr(
                Figure, "savefig", lambda self, path, dpi: found.update({path.name: self})
            )
            report_figures.draw_figures(grouped(lines), tmp_path)
        for figure in found.values():
            figure.draw_without_rendering()
        return found

    return drawn


@pytest.mark.parametrize("n_data_sets", [1, 2, 3, 11])
def test_nothing_overlaps(figures, n_data_sets):
    """Panels, their titles, tick labels and the legend keep clear of each other."""
    for figure in figures(made_up(ELEVEN[:n_data_sets], METHODS, (1, 2, 4, 8, 16))).values():
        boxes = [ax.get_tightbbox() for ax in figure.axes]
        boxes += [figure.legends[0].get_window_extent()]
        for one, other in itertools.combinations(boxes, 2):
            assert not one.overlaps(other)
        for ax in figure.axes:
            labels = [label.get_window_extent() for label in ax.get_xticklabels()]
            assert not any(a.overlaps(b) for a, b in itertools.pairwise(labels))
        assert figure.bbox.containsx(boxes[-1].x1)


def test_curves_are_means_with_deviations(figures):
    """One panel per data set after the average; one line per method, no variants."""
    lines = made_up(("dtd", "eurosat"), ("zero-shot", "taskres", "taskres-alpha-1"))
    (figure,) = (figure for name, figure in figures(lines).items() if name == "report.png")
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["average of 2 data sets", "dtd", "eurosat"]
    found = {text.get_text() for text in figure.legends[0].get_texts()}
    assert found == {"zero-shot", "taskres"}
    for ax, data_sets in zip(figure.axes, [{"dtd", "eurosat"}, {"dtd"}, {"eurosat"}], strict=True):
        handles = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
        for method in found:
            means = [
                np.mean([only(lines, data=d, method=method, shots=k) for d in data_sets])
                for k in (1, 16)
            ]
            np.testing.assert_allclose(
                np.asarray(handles[method][0].get_ydata(orig=False), float), means
            )


def test_panels_are_what_the_display_draws(figures):
    """Points and bars of a panel are those of FewShotCurveDisplay on the same lines."""
    lines = made_up(("dtd",), ("gda", "clap"), shots=(1, 4, 16), seeds=(1, 2, 3))
    (panel,) = figures(lines)["report.png"].axes
    ours = dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
    ax = Figure().subplots()
    FewShotCurveDisplay.from_results(lines, ax=ax)
    theirs = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    assert ours.keys() == theirs.keys() == {"gda", "clap"}
    for method, handle in ours.items():
        for part, other in (
            (handle[0], theirs[method][0]),
            *zip(handle[1], theirs[method][1], strict=True),
        ):
            y = np.asarray(part.get_ydata(orig=False), float)
            np.testing.assert_allclose(y, np.asarray(other.get_ydata(orig=False), float))
    assert panel.get_xticks().tolist() == ax.get_xticks().tolist() == [1, 4, 16]
    assert panel.get_xscale() == ax.get_xscale() == "log"
    assert report_figures.draw_curves is few_shot_curve.draw_curves


def test_variants_are_drawn_where_there_is_nothing_else(figures):
    """A figure is never empty."""
    (figure,) = (
        f for name, f in figures(made_up(("dtd",), ("taskres-image",))).items() if "report" in name
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["taskres-image"]


@pytest.mark.parametrize(
    ("data_sets", "shots", "where"),
    [
        (("dtd", "imagenet"), (1, 16), "imagenet, 16 images per class"),
        (("dtd", "imagenet"), (1, 4), "average of 2 data sets, 4 images per class"),
        (("dtd",), (1,), "dtd, 1 image per class"),
    ],
)
def test_parameters_are_compared_on_imagenet_or_on_all(figures, data_sets, shots, where):
    """The title says which; what tunes nothing stands at 0, the rest near its number."""
    lines = made_up(data_sets, ("zero-shot", "coop", "taskres", "gda"), shots)
    figure = figures(lines)["parameters.png"]
    (ax,) = figure.axes
    assert ax.get_title() == f"RN50, {where}"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == 4
    kept = ["imagenet"] if where.startswith("imagenet") else data_sets
    for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
        (x,), (y,) = handle[0].get_data()
        method, count = re.fullmatch(r"[\d.]+ %  (\S+) \(([\d,]+)\)", label).groups()
        values = [only(lines, data=d, method=method, shots=max(shots)) for d in kept]
        assert y == pytest.approx(np.mean(values))
        if method == "zero-shot":
            assert count == "0"
            assert ax.get_xticklabels()[0].get_text() == "0"
            assert x == pytest.approx(ax.get_xticks()[0])
        else:
            assert int(count.replace(",", "")) == 1000 * len(method)
            assert abs(np.log10(x / (1000 * len(method)))) < 0.1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=12))
@example([24_111, 24_064, 24_064])
@example([24_064, 24_111, 24_100, 25_000, 0, 0])
def test_points_stand_in_the_order_of_their_numbers(counts):
    """A greater number is farther right; close ones keep a distance, lone ones their place."""
    zero, _ = report_figures._ticks(counts)
    places = {f"m{i}": max(count, zero) for i, count in enumerate(counts)}
    found = report_figures._side_by_side(places)
    assert found.keys() == places.keys()
    ordered = sorted(places, key=lambda method: (places[method], found[method]))
    for one, other in itertools.pairwise(ordered):
        assert found[other] / found[one] > 1.149
        if places[other] / places[one] > 1.15 ** len(counts):
            assert found[one] < places[other]
    if len(counts) == 1:
        assert found["m0"] == pytest.approx(places["m0"])


def test_methods_look_different():
    """No two whole methods share colour, line and marker, and zero-shot has its own."""
    whole = [method for method in METHODS if method not in report_tables.ABLATION_ONLY]
    looks = report_figures._looks(whole)
    seen = {(looks[m]["color"], looks[m]["linestyle"], looks[m]["marker"]) for m in whole}
    assert len(seen) == len(whole)


def test_file_names_are_safe():
    """A backbone's name may hold what a file name can't."""
    groups = grouped([line(), line(backbone="local-dir:a/b")])
    assert report_figures.file_names(groups, "RN50") == ("report.png", "parameters.png")
    assert report_figures.file_names(groups, "local-dir:a/b")[0] == "report-local-dir-a-b.png"
