"""Pictures are drawn from what results and saved tensors hold, say what they cannot draw, and repeat their bytes."""

from __future__ import annotations

import json
import sys
from itertools import combinations, pairwise
from pathlib import Path
from statistics import fmean, stdev
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from conftest import At, Lab
from hebbbench import registry
from hebbbench.cell import cells
from hebbbench.cli import app
from hebbbench.errors import HebbBenchError, ResultError
from hebbbench.plots import axis, cost, curves, heatmap, ranking, scatter
from hebbbench.plots.collection import Found, collect
from hebbbench.plots.draw import Request, draw
from hebbbench.plots.names import AXES as NAMED
from hebbbench.plots.names import COSTS, quantity
from hebbbench.plots.series import points_of, spread
from hebbbench.plots.sheet import Legend, add_legend, lay_out, panels, settle
from hebbbench.plots.style import handle, look, styled
from hebbbench.recipe import Recipe
from hebbbench.record import store, tensors
from hebbbench.training.run import Settings, run_cell

SOFT = {"optimizer": {"lr": 0.01}, "init": {"law": "normal", "radius": 25.0}}
AXES = {"width": {"path": "architecture.options.widths", "values": [4, 8, 64]}}
SCORE = "probe.test.accuracy"
NORM = "diagnostics.weight_norm.fc1.mean"
PRINTED = [
    {"rule": "bp", "value": 0.5, "axes": {"width": 4}, "source": "Somebody 2020, table 1; a remark"},
    {"rule": "bp", "value": 0.6, "axes": {"width": 64}, "source": "Somebody 2020, table 1"},
    {"rule": "hebb", "value": 0.55, "axes": {"width": 4}, "source": "Somebody 2020, table 1"},
    {"rule": "bp", "value": 0.01, "axes": {"width": 4}, "source": "Somebody", "metric": "Gini coefficient, end"},
    {"rule": "bp", "value": 0.9, "axes": {"width": 4}, "source": "Somebody", "metric": "test top-5 accuracy"},
]
RESULTS = Path(__file__).parent.parent / "results"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("plots"))


@pytest.fixture(scope="module")
def results(lab):
    """Two rules, two seeds, two widths, with diagnostics and tensors."""
    protocol = lab.protocol(changes={"name": "tiny", "axes": AXES, "architecture.options.widths": 4})
    found = []
    for width in (4, 64):
        for rule, recipe in (("softhebb", SOFT), ("bp", {})):
            chosen = Recipe.model_validate({"provenance": "default", **recipe})
            for cell in cells(protocol, [rule], [0, 1], {"width": width}, chosen):
                settings = Settings(device="cpu", cache=lab.cache, diagnostics=True, save_weights=True)
                found.append(run_cell(cell, lab.results, settings, At()))
    return found


@pytest.fixture(autouse=True)
def _close():
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.fixture(scope="module")
def protocol(lab):
    changes = {"name": "tiny", "axes": AXES, "architecture.options.widths": 4, "published": PRINTED}
    return lab.protocol(changes=changes)


def lines_of(axis) -> dict[str, list[tuple[float, float]]]:
    return {
        line.get_label(): [(float(x), float(y)) for x, y in line.get_xydata()]
        for line in axis.get_lines()
        if not line.get_label().startswith("_")
    }


def bars_of(axis) -> dict[str, np.ndarray]:
    """Label → (x, y) of the marks with bars."""
    return {c.get_label(): c.lines[0].get_xydata() for c in axis.containers}


def hollow_of(axis) -> list[list[float]]:
    """(x, y) of every hollow mark, sorted."""
    lines = (line for line in axis.get_lines() if line.get_markerfacecolor() == "none")
    return sorted([round(float(x), 6), round(float(y), 6)] for line in lines for x, y in line.get_xydata())


def legend_of(figure) -> tuple[str, list[str]]:
    (legend,) = figure.legends
    return legend.get_title().get_text().replace("\n", " "), [text.get_text() for text in legend.get_texts()]


def scores(results, rule, **axes) -> list[float]:
    """In percent, of each seed."""
    return [100 * r.metrics[SCORE].value for r in results if r.rule.name == rule and r.axes == axes]


def at(results, **axes) -> list:
    return [result for result in results if result.axes == axes]


def test_a_curve_is_the_mean_over_seeds_at_each_epoch(results):
    with styled():
        figure = curves.draw(Found(results), "gini", "diagnostics.gini.fc1")
    own = [r for r in at(results, width=64) if r.rule.name == "bp"]
    expected = [sum(r.curves["diagnostics.gini.fc1"][0][1] for r in own) / 2]
    panel = next(axis for axis in figure.axes if "64" in axis.get_title())
    assert lines_of(panel)["bp"][0][1] == pytest.approx(expected[0])
    assert len(figure.axes) == 2
    assert figure.get_suptitle() == "tiny"


def test_a_line_ends_where_the_first_of_its_seeds_does(results):
    long = {"diagnostics.gini.fc1": [[1.0, 0.1], [2.0, 0.2], [3.0, 0.3]]}
    short = {"diagnostics.gini.fc1": [[1.0, 0.5], [2.0, 0.6]]}
    own = [r for r in at(results, width=64) if r.rule.name == "bp"]
    cut = [r.model_copy(update={"curves": kept}) for r, kept in zip(own, (long, short), strict=True)]
    with styled():
        (panel,) = curves.draw(Found(cut), "gini", "diagnostics.gini.fc1").axes
    assert lines_of(panel)["bp"] == [(1.0, pytest.approx(0.3)), (2.0, pytest.approx(0.4))]


def test_the_training_loss_is_the_curve_nobody_names_over_training_epochs(results):
    with styled():
        figure = curves.draw(Found(results), "curve", None)
    first = [r.curves["train.loss"][0][1] for r in at(results, width=4) if r.rule.name == "bp"]
    panel = figure.axes[0]
    assert lines_of(panel) == {"bp": [(1.0, pytest.approx(fmean(first))), (2.0, ANY)]}
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("training epochs", "training loss")
    assert legend_of(figure) == ("Without such a curve: softhebb.", ["bp"])


def test_the_read_out_s_curve_is_in_percent_over_its_own_epochs(results, protocol):
    with styled():
        figure = curves.draw(Found(results, {"tiny": protocol}), "curve", "probe.validation.accuracy")
    own = [r.curves["probe.validation.accuracy"][-1][1] for r in at(results, width=4) if r.rule.name == "softhebb"]
    panel = figure.axes[0]
    assert lines_of(panel)["softhebb"][-1] == (3.0, pytest.approx(100 * fmean(own)))
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("read-out epochs", "validation accuracy, linear read-out, %")


def test_a_curve_that_is_not_there_is_answered_with_those_that_are(results):
    bare = [r.model_copy(update={"curves": {"train.loss": [[1.0, 2.0]]}}) for r in results]
    with styled(), pytest.raises(ResultError, match=r"curve 'loss'\..*train\.loss") as error:
        curves.draw(Found(bare), "curve", "loss")
    assert "--diagnostics" not in str(error.value)
    with styled(), pytest.raises(ResultError, match=r"train\.loss.*--diagnostics"):
        curves.draw(Found(bare), "gini", None)
    with styled(), pytest.raises(ResultError, match="holds a curve"):
        curves.draw(Found([r.model_copy(update={"curves": {}}) for r in results]), "curve", None)
    with styled(), pytest.raises(ResultError, match=r"curves of \d+ quantities.*--curve"):
        curves.draw(Found(results), "curve", "*")


def test_alignment_is_that_with_gradient_descent_where_no_diagnostics_were_kept(results):
    kept = {f"alignment.fc{layer}.sgd{end}": [[1.0, 0.1 * layer]] for layer in (1, 2) for end in ("", ".sd")}
    own = [r.model_copy(update={"curves": kept}) for r in at(results, width=4) if r.rule.name == "bp"]
    with styled():
        (panel,) = curves.draw(Found(own), "alignment", None).axes
    drawn = bars_of(panel)
    assert {label: xy.tolist() for label, xy in drawn.items()} == {
        "bp, fc1": [[1.0, pytest.approx(0.1)]],
        "bp, fc2": [[1.0, pytest.approx(0.2)]],
    }
    assert panel.get_ylabel() == "alignment with gradient descent (cosine)"


def test_accuracy_against_an_axis_is_in_percent_with_the_spread_over_seeds(results, protocol):
    with styled():
        figure = axis.draw(Found(results, {"tiny": protocol}), "width", SCORE)
    (drawn,) = figure.axes
    values = scores(results, "bp", width=4)
    assert bars_of(drawn)["bp"][0].tolist() == pytest.approx([4, fmean(values)])
    (bar,) = next(c for c in drawn.containers if c.get_label() == "bp").lines[2]
    low, high = bar.get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx(stdev(values))
    assert (drawn.get_xscale(), drawn.get_title()) == ("log", "")
    assert (drawn.get_xlabel(), drawn.get_ylabel()) == ("width, hidden units", "test accuracy, linear read-out, %")
    assert figure.get_suptitle() == "tiny"


def test_rules_are_ranked_with_their_spread_beside_backprop_and_the_random_network(results):
    random = [r.model_copy(update={"rule": r.rule.model_copy(update={"name": "random"})}) for r in results]
    random = [r for r in at(random, width=4) if r.seed == 0 and r.rule.name == "random"][:1]
    shown = [*at(results, width=4), *random]
    with styled():
        figure = ranking.draw(Found(shown), SCORE, published=False)
    (drawn,) = figure.axes
    found = {rule: scores(shown, rule, width=4) for rule in ("bp", "softhebb", "random")}
    expected = sorted(found, key=lambda rule: -fmean(found[rule]))
    names = [text.get_text() for text in drawn.get_yticklabels()]
    assert [name.partition(" ")[0] for name in names] == expected
    assert "random (1)" in names
    marks = [c.lines[0].get_xydata()[0].tolist() for c in drawn.containers]
    assert marks == [[pytest.approx(fmean(found[rule])), height] for height, rule in enumerate(expected)]
    bars = [c.lines[2][0].get_segments()[0][:, 0] for c in drawn.containers]
    spreads = [stdev(found[rule]) if len(found[rule]) > 1 else 0.0 for rule in expected]
    assert [(high - low) / 2 for low, high in bars] == pytest.approx(spreads)
    upright = sorted(float(line.get_xdata()[0]) for line in drawn.get_lines() if list(line.get_ydata()) == [0, 1])
    assert upright == pytest.approx(sorted(fmean(found[rule]) for rule in ("bp", "random")))
    assert drawn.get_ylim()[0] > drawn.get_ylim()[1]
    assert "tiny: width" in figure.get_suptitle()
    assert {"bp", "random"} <= set(legend_of(figure)[1])


def test_a_ranked_rule_without_a_value_has_a_word_in_its_row(results):
    gone = [
        r.model_copy(update={"status": "diverged", "reason": "at step 3", "metrics": {}}) if r.rule.name == "bp" else r
        for r in at(results, width=4)
    ]
    with styled():
        (drawn,) = ranking.draw(Found(gone), SCORE, published=False).axes
    assert [text.get_text() for text in drawn.get_yticklabels()] == ["softhebb", "bp"]
    assert [text.get_text() for text in drawn.texts] == ["diverged"]


def test_published_numbers_are_hollow_at_their_rule_and_axis_values_also_where_nobody_ran_it(results, protocol):
    found = Found(results, {"tiny": protocol})
    with styled():
        ranked = ranking.draw(found.at(["width=4"]), SCORE, published=True)
        against = axis.draw(found, "width", SCORE, published=True)
        alone = axis.draw(found.by(["softhebb", "bp"]), "width", SCORE, published=True)
        plain = axis.draw(found, "width", SCORE)
    names = [text.get_text() for text in ranked.axes[0].get_yticklabels()]
    assert hollow_of(ranked.axes[0]) == sorted([[50.0, names.index("bp")], [55.0, names.index("hebb")]])
    assert hollow_of(against.axes[0]) == [[4.0, 50.0], [4.0, 55.0], [64.0, 60.0]]
    assert hollow_of(alone.axes[0]) == [[4.0, 50.0], [64.0, 60.0]]
    assert hollow_of(plain.axes[0]) == []
    for figure in (ranked, against):
        assert "Hollow: published test accuracy (Somebody 2020, table 1)." in legend_of(figure)[0]
    assert legend_of(against)[1] == ["bp", "softhebb", "hebb"]
    styles = {line.get_color() for line in against.axes[0].get_lines() if line.get_markerfacecolor() == "none"}
    assert styles == {look(0)["color"], look(2)["color"]}


def test_published_numbers_of_what_is_not_drawn_are_refused_not_left_out(results, protocol):
    found = Found(results, {"tiny": protocol})
    with styled(), pytest.raises(ResultError, match=r"no probe\.train\.accuracy is published"):
        axis.draw(found, "width", "probe.train.accuracy", published=True)
    with styled(), pytest.raises(ResultError, match=r"no probe\.test\.accuracy by softhebb"):
        axis.draw(found.by(["softhebb"]), "width", SCORE, published=True)


def other(results, name: str) -> list:
    """The same under a protocol of another name."""
    return [r.model_copy(update={"protocol": r.protocol.model_copy(update={"name": name})}) for r in results]


def test_each_protocol_and_each_word_of_an_axis_has_a_panel_and_spreads_are_over_seeds_alone(results):
    words = [
        r.model_copy(update={"axes": {"precision": "float32" if r.axes["width"] == 4 else "bfloat16"}}) for r in results
    ]
    with styled():
        two = ranking.draw(Found([*at(results, width=4), *other(at(results, width=64), "other")]), SCORE, False)
        points = ranking.draw(Found(words), SCORE, False)
        costs = cost.draw(Found(words), "steps", SCORE)
    assert [a.get_title().partition(":")[0] for a in two.axes] == ["tiny", "other"]
    assert [a.get_title().partition("=")[2].strip() for a in points.axes] == ["bfloat16", "float32"]
    for figure in (two, points):
        for panel, width in zip(figure.axes, (4, 64) if figure is two else (64, 4), strict=True):
            marks = sorted(float(c.lines[0].get_xdata()[0]) for c in panel.containers)
            assert marks == pytest.approx(sorted(fmean(scores(results, r, width=width)) for r in ("bp", "softhebb")))
    assert [len(panel.containers) for panel in costs.axes] == [2, 2]


def test_a_protocol_that_would_be_left_out_is_an_error(results):
    bare = other([r.model_copy(update={"axes": {}}) for r in at(results, width=4)], "bare")
    both = Found([*results, *bare])
    with styled(), pytest.raises(ResultError, match="'bare' do not differ in a numeric axis 'width'"):
        axis.draw(both, "width", SCORE)
    with pytest.raises(ResultError, match="'bare' has no axis 'width'"):
        both.at(["width=4"])
    silent = other([r.model_copy(update={"curves": {}, "metrics": {}}) for r in at(results, width=4)], "silent")
    with styled(), pytest.raises(ResultError, match="silent: no result holds a curve"):
        curves.draw(Found([*results, *silent]), "curve", None)
    with styled(), pytest.raises(ResultError, match="under 'silent'"):
        ranking.draw(Found([*results, *silent]), SCORE, False)


def test_too_many_panels_are_refused_with_the_axes_to_fix(results):
    many = [varied(results[0], n / 10, d / 10, 0.5) for n in range(4) for d in range(4)]
    many = [r.model_copy(update={"curves": {"train.loss": [[1.0, 1.0]]}}) for r in many]
    with styled(), pytest.raises(ResultError, match=r"16 panels.*decay \(0, 0.1, 0.2, 0.3\)\. .*--axis"):
        curves.draw(Found(many), "curve", None)


def test_accuracy_against_a_cost_takes_each_run_s_own(results):
    shown = Found(at(results, width=4))
    with styled():
        figure = cost.draw(shown, "peak_memory_bytes", SCORE)
    (drawn,) = figure.axes
    own = [r.cost.peak_memory_bytes / 2**20 for r in shown.results if r.rule.name == "bp"]
    assert bars_of(drawn)["bp"][0].tolist() == pytest.approx([fmean(own), fmean(scores(results, "bp", width=4))])
    assert drawn.get_xlabel() == "peak memory, MiB"


def test_accuracy_is_ranked_unless_an_axis_varies_or_is_named(lab, results, tmp_path):
    def labels(*options: str) -> str:
        asked = ["plot", str(lab.results / "tiny"), "--kind", "accuracy", "--output", str(tmp_path / "a"), *options]
        found = CliRunner().invoke(app, asked)
        assert found.exit_code == 0, found.output
        return (tmp_path / "a.svg").read_text()

    assert "width, hidden units" in labels()
    assert "mean ± sd of 2 seeds" in labels("--axis", "width=4")
    assert COSTS["train_seconds"][0] in labels("--x", "train_seconds")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "accuracy", "--metric", "norm.fc1"], r"norm.fc1 is no accuracy.*--kind axis.*probe.test.accuracy"),
        (["--kind", "accuracy", "--x", "colour"], r"axis 'colour', and it is no cost.*train_seconds.*width"),
        (["--kind", "accuracy", "--curve", "train.loss"], r"takes no --curve: that goes with curve, gini, alignment"),
        (["--kind", "gini", "--published"], r"takes no --published: that goes with accuracy, axis"),
        (["--kind", "accuracy", "--published", "--x", "steps"], r"says its steps.*--published"),
        (["--kind", "scatter"], r"needs with --x the metric .* right: .*diagnostics.weight_norm.fc1.mean"),
        (["--kind", "scatter", "--x", SCORE], r"--x probe.test.accuracy is what stands upwards, too"),
        (
            ["--kind", "scatter", "--x", "diagnostics.gini.fc9"],
            r"no result has the metric 'd.*gini.fc9'.*Did you mean 'd.*gini.fc1",
        ),
        (
            ["--kind", "scatter", "--x", NORM, "--published"],
            r"takes no --published: that goes with accuracy, axis",
        ),
        (["--kind", "axis", "--rule", "pb"], r"the rule 'pb'.*bp, softhebb"),
        (["--kind", "axis", "--axis", "wide=4"], r"no axis 'wide'.*'width'"),
        (["--kind", "axis", "--axis", "width"], r"--axis width has no value.*name=value"),
        (["--kind", "axis", "--axis", "width=5"], r"no result has width=5.*4, 64"),
    ],
)
def test_what_cannot_be_drawn_says_what_can(lab, results, options, message):
    found = CliRunner().invoke(app, ["plot", str(lab.results / "tiny"), *options])
    assert isinstance(found.exception, ResultError)
    assert found.exception.exit_code == 2
    with pytest.raises(ResultError, match=message):
        raise found.exception


def test_a_spread_averages_seeds_and_has_none_for_one():
    line = spread("a", [(1.0, 2.0), (1.0, 4.0), (2.0, 5.0)])
    assert (line.x, line.mean, line.sd, line.seeds) == ((1.0, 2.0), (3.0, 5.0), (pytest.approx(2**0.5), 0.0), 2)


def varied(result, noise: float, decay: float, value: float):
    metric = result.metrics["probe.test.accuracy"].model_copy(update={"value": value})
    return result.model_copy(update={"axes": {"noise": noise, "decay": decay}, "metrics": {"alignment.fc2": metric}})


def test_a_heat_map_lays_its_zero_contour_between_the_signs(results):
    grid = [varied(results[0], n, d, d - n) for n in (0.0, 0.1, 0.2) for d in (0.05, 0.15)]
    with styled():
        figure = heatmap.draw(Found(grid), "decay", "noise", "alignment.fc2")
    axis = figure.axes[0]
    drawn = np.asarray(axis.images[0].get_array())
    assert drawn[1, 0] == pytest.approx(-0.05)  # noise 0.1 is the second row, decay 0.05 the first column
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("weight decay γ", "parameter noise σ")
    segments = [s for c in axis.collections if hasattr(c, "get_paths") for s in c.get_paths()]
    assert segments
    with styled():
        assert heatmap.draw(Found(grid), None, None, "alignment.fc2").axes[0].get_ylabel() == "parameter noise σ"
    with styled(), pytest.raises(ResultError, match="one rule that differ in two numeric axes"):
        heatmap.draw(Found(results), None, None, "probe.test.accuracy")


def test_losses_wide_apart_have_colours_by_their_logarithms(results):
    def loss(n: float, d: float, value: float):
        made = varied(results[0], n, d, value)
        return made.model_copy(update={"metrics": {"end_to_end.test.loss": made.metrics["alignment.fc2"]}})

    grid = [loss(n, d, 10.0 ** (i + j)) for i, n in enumerate((0.0, 0.1)) for j, d in enumerate((0.05, 0.15))]
    with styled():
        image = heatmap.draw(Found(grid), "decay", "noise", "end_to_end.test.loss").axes[0].images[0]
    assert [float(image.norm(value)) for value in (1.0, 10.0, 100.0)] == pytest.approx([0, 0.5, 1])


def test_one_metric_against_another_has_a_mark_for_each_rule_and_axis_point(results):
    with styled():
        figure = scatter.draw(Found(results), NORM, SCORE)
    (axis,) = figure.axes
    expected = {
        rule: sorted(
            (
                fmean(r.metrics[NORM].value for r in results if r.rule.name == rule and r.axes == {"width": width}),
                fmean(scores(results, rule, width=width)),
            )
            for width in (4, 64)
        )
        for rule in ("bp", "softhebb")
    }
    drawn = {label: sorted(points) for label, points in lines_of(axis).items()}
    assert drawn == {rule: [pytest.approx(point) for point in points] for rule, points in expected.items()}
    assert all(line.get_linestyle() == "None" for line in axis.get_lines())
    assert axis.get_xlabel() == quantity(NORM).label()
    assert legend_of(figure) == ("Means of 2 seeds.", ["bp", "softhebb"])


def test_marks_of_one_rule_are_told_apart_by_an_axis_and_zero_has_a_line(results):
    def made(n: float, d: float):
        result = varied(results[0], n, d, d - n)
        loss = result.metrics["alignment.fc2"].model_copy(update={"value": 10.0 ** (-20 * d)})
        return result.model_copy(update={"metrics": {**result.metrics, "end_to_end.test.loss": loss}})

    grid = [made(n, d) for n in (0.0, 0.1) for d in (0.01, 0.05, 0.15)]
    with styled():
        figure = scatter.draw(Found(grid), "alignment.fc2", "end_to_end.test.loss")
    (axis,) = figure.axes
    heading, labels = legend_of(figure)
    assert (heading, labels) == ("weight decay γ:", ["0.01", "0.05", "0.15"])
    assert {len(points) for points in lines_of(axis).values()} == {2}
    assert any(list(line.get_xdata()) == [0, 0] for line in axis.get_lines())
    assert axis.get_yscale() == "log"


def test_no_mark_of_a_signed_metric_is_lost_to_a_logarithmic_axis(results):
    def made(name: str, n: float, value: float):
        result = varied(results[0], n, 0.05, value)
        loss = result.metrics["alignment.fc2"].model_copy(update={"value": 1.0 + n})
        metrics = {**result.metrics, "end_to_end.test.loss": loss}
        return result.model_copy(
            update={"protocol": result.protocol.model_copy(update={"name": name}), "metrics": metrics}
        )

    grid = [made(*each) for each in (("one", 0.0, 0.01), ("one", 0.1, 0.9), ("two", 0.0, -0.5), ("two", 0.1, 0.5))]
    with styled():
        figure = scatter.draw(Found(grid), "end_to_end.test.loss", "alignment.fc2")
    assert len(figure.axes) == 2
    assert {axis.get_yscale() for axis in figure.axes} == {"linear"}


def test_a_metric_against_an_axis_has_a_line_for_each_value_of_the_others(results):
    noises, decays = (0.0, 0.1), (0.0, 0.01, 0.1)
    grid = [varied(results[0], n, d, d - n) for n in noises for d in decays]
    with styled():
        figure = axis.draw(Found(grid), "decay", "alignment.fc2")
    (drawn,) = figure.axes
    assert legend_of(figure) == ("parameter noise σ:", ["0", "0.1"])
    assert list(bars_of(drawn).values())[1].tolist() == pytest.approx(np.array([[d, d - 0.1] for d in decays]))
    assert (drawn.get_xscale(), drawn.get_xlabel()) == ("symlog", "weight decay γ")
    assert drawn.get_ylabel() == "Hebbian alignment, fc2 (cosine)"
    with styled(), pytest.raises(ResultError, match=r"numeric axis 'colour'.*decay"):
        axis.draw(Found(grid), "colour", "alignment.fc2")
    with styled(), pytest.raises(ResultError, match=r"no result has the metric 'alignment.fc3'.*alignment.fc2"):
        axis.draw(Found(grid), "decay", "alignment.fc3")


def test_a_mean_over_some_of_the_seeds_is_half_filled_not_joined_and_says_how_many(results):
    grid = [varied(results[0], 0.0, d, d) for d in (0.0, 0.01, 0.1)]
    collapsed = grid[-1].metrics["alignment.fc2"].model_copy(update={"value": None, "reason": "collapsed: all"})
    gone = grid[-1].model_copy(update={"metrics": {"alignment.fc2": collapsed}, "seed": 1})
    with styled():
        figure = axis.draw(Found([*grid, gone]), "decay", "alignment.fc2")
        lost = axis.draw(Found([*grid[:2], gone]), "decay", "alignment.fc2")
    (drawn,) = figure.axes
    half = [line for line in drawn.get_lines() if line.get_fillstyle() == "left"]
    assert [line.get_xydata().tolist() for line in half] == [[[0.1, 0.1]]]
    joined = [list(line.get_xdata()) for line in drawn.get_lines() if line.get_linestyle() == "-"]
    assert [0.0, 0.01] in joined
    assert not any(0.1 in xs for xs in joined if len(xs) > 1)
    assert [text.get_text() for text in drawn.texts] == ["1/2"]
    assert "n of N seeds" in legend_of(figure)[0]
    assert [text.get_text() for text in lost.axes[0].texts] == ["collapsed"]
    assert 0.1 in lost.axes[0].get_xticks()
    assert legend_of(lost)[0] == ""


def test_lines_stand_in_the_order_of_their_numbers(results):
    grid = [varied(results[0], n, d, d - n) for n in (0.5, 0.02, 0.1, 0) for d in (0.0, 0.01)]
    with styled():
        figure = axis.draw(Found(grid), "decay", "alignment.fc2")
    assert legend_of(figure)[1] == ["0", "0.02", "0.1", "0.5"]


def test_many_lines_part_into_panels(results):
    grid = [varied(results[0], n / 10, d, 0.1) for n in range(9) for d in (0.0, 0.01)]
    with styled():
        figure = axis.draw(Found(grid), "decay", "alignment.fc2")
    assert [panel.get_title().replace("\N{NO-BREAK SPACE}", " ") for panel in figure.axes] == [
        f"parameter noise σ = {n / 10:g}" for n in range(9)
    ]
    assert {len(panel.containers) for panel in figure.axes} == {1}


@pytest.mark.parametrize(
    ("values", "law"),
    [([1, 2, 7], "linear"), ([4, 32], "log"), ([0, 0.1, 0.7], "linear"), ([0, 0.001, 0.1], "symlog"), ([0], "linear")],
)
def test_values_wide_apart_stand_on_a_logarithmic_axis_each_with_its_tick(values, law):
    from matplotlib import pyplot

    with styled():
        figure, drawn = pyplot.subplots()
        lay_out(drawn, [*reversed(values), values[0]])
    assert (drawn.get_xscale(), drawn.get_xticks().tolist()) == (law, values)
    assert [text.get_text() for text in drawn.get_xticklabels()] == [f"{value:g}" for value in values]
    pyplot.close(figure)


def boxes(texts) -> list:
    return [text.get_window_extent() for text in texts if text.get_visible() and text.get_text()]


@pytest.mark.parametrize("values", [[20, 32, 44, 56, 110, 1202], [0, 1e-3, 1.1e-3, 1.2e-3, 0.5], [0.25, 0.5, 90]])
@pytest.mark.parametrize("ticked", [True, False])
def test_tick_labels_do_not_run_into_each_other(values, ticked):
    with styled():
        figure, (drawn,) = panels(["", "a title"], Legend([]), 2.5)
        drawn.plot(values, values)
        lay_out(drawn, values, ticked=ticked)
        settle(figure)
        figure.canvas.draw()
        labels = [label for label in drawn.get_xticklabels() if label.get_visible() and label.get_text()]
        turned = labels[0].get_rotation() == 45
        # Turned text runs along the diagonal: its neighbours lie beside it if their ends are a line's height apart.
        ends = [(box.x1, box.x1) if turned else (box.x0, box.x1) for box in boxes(labels)]
        apart = labels[0].get_fontsize() * figure.dpi / 72 if turned else 0
    assert len(labels) > 1
    assert all(right[0] - left[1] > apart for left, right in pairwise(ends))


@pytest.mark.parametrize("count", [1, 4, 15, 16, 40])
def test_a_legend_lies_on_the_sheet_and_leaves_the_picture_its_height(count):
    labels = [f"rule_{'x' * (index % 12)}_{index}" for index in range(count)]
    with styled():
        legend = Legend(labels, ["A sentence that is a good deal longer than a column of a paper is wide, or nearly."])
        figure, (drawn,) = panels(["", "title"], legend, 2.5)
        add_legend(figure, [handle(index) for index in range(count)], legend)
        figure.canvas.draw()
        box, sheet = figure.legends[0].get_window_extent(), figure.bbox
        picture = drawn.get_window_extent()
    assert sheet.x0 - 1 <= box.x0
    assert box.x1 <= sheet.x1 + 1
    assert sheet.y0 - 1 <= box.y0
    assert not box.overlaps(picture)
    assert box.height < 1.4 * picture.height
    assert picture.height > 1.5 * figure.dpi
    assert picture.width > 2 * figure.dpi


def test_no_two_lines_look_alike_and_indices_are_those_of_what_is_drawn(results):
    alike = [(look(a), look(b)) for a, b in combinations(range(64), 2) if look(a) == look(b)]
    bare = [{k: v for k, v in look(i).items() if k != "marker"} for i in range(32)]
    assert alike == []
    assert all(a != b for a, b in combinations(bare, 2))
    silent = [r.model_copy(update={"metrics": {}}) if r.rule.name == "bp" else r for r in results]
    with styled():
        against = axis.draw(Found(silent), "width", SCORE)
        costs = cost.draw(Found(at(silent, width=4)), "steps", SCORE)
        loss = curves.draw(
            Found([r.model_copy(update={"curves": {}}) if r.rule.name == "bp" else r for r in results]), "gini", None
        )
    for figure in (against, costs, loss):
        assert legend_of(figure)[1] == ["softhebb"]
        assert figure.legends[0].get_lines()[0].get_color() == look(0)["color"]
        assert "bp" in legend_of(figure)[0]


def test_every_axis_metric_and_curve_there_is_has_a_readable_name():
    axes = {name for protocol in registry.protocol_names() for name in registry.protocol(protocol).axes}
    assert axes <= set(NAMED)
    assert all(label != name or name == "optimizer" for name, label in NAMED.items())
    names = set()
    for folder in RESULTS.iterdir():
        for rule in folder.iterdir():
            plain = json.loads(next(iter(sorted(rule.rglob("*.json")))).read_text(encoding="utf-8"))
            names |= {*plain["metrics"], *plain["curves"]}
    assert "alignment.fc2.sgd.full" in names
    assert [name for name in sorted(names) if quantity(name).text == name] == []


def test_saved_tensors_are_the_weights_before_and_after(lab, results):
    (path,) = (lab.results / "tiny" / "softhebb" / "width=4").glob("seed-0.safetensors")
    saved = tensors.load(path)
    assert saved.layers == ["fc1"]
    assert saved.shapes == {"fc1": (8, 8, 1)}
    assert saved.images("fc1", saved.rows("fc1", "last")).shape == (4, 8, 8, 1)
    assert not np.array_equal(saved.rows("fc1", "first"), saved.rows("fc1", "last"))
    update, hebb = saved.rows("fc1", "update"), saved.rows("fc1", "hebb")
    cosine = (update * hebb).sum() / np.linalg.norm(update) / np.linalg.norm(hebb)
    curve = store.load(path.with_suffix(".json")).curves["diagnostics.hebbian_alignment.fc1"]
    assert cosine == pytest.approx(curve[-1][1], abs=1e-5)
    with pytest.raises(ResultError, match="no layer 'fc9'"):
        saved.rows("fc9", "last")


def test_what_is_no_file_of_tensors_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(ResultError, match="--save-weights"):
        tensors.load(path)
    tensors.save(path, {}, "made", {})
    with pytest.raises(ResultError, match="holds no weights"):
        tensors.load(path)
    tensors.save(path, {"fc1/last": torch.ones(2, 6)}, "made", {"fc1": (1, 3, 2)})
    with pytest.raises(ResultError, match="1 or 3 channels"):
        tensors.load(path).images("fc1", tensors.load(path).rows("fc1", "last"))
    with pytest.raises(ResultError, match="--diagnostics"):
        tensors.load(path).rows("fc1", "update")


@pytest.mark.parametrize("kind", ["accuracy", "axis", "curve", "gini", "alignment", "scatter", "features", "updates"])
def test_every_picture_is_written_twice_and_repeats_its_bytes(lab, results, kind, tmp_path):
    folder = lab.results / "tiny"
    file = folder / "bp" / "width=64" / "seed-0.safetensors"
    target = str(file if kind in ("features", "updates") else folder)
    for stem in ("one", "two"):
        more = ["--x", NORM] if kind == "scatter" else []
        asked = ["plot", target, "--kind", kind, *more, "--output", str(tmp_path / stem)]
        found = CliRunner().invoke(app, asked)
        assert found.exit_code == 0, found.output
    for suffix in (".png", ".svg"):
        one, two = (tmp_path / f"{stem}{suffix}" for stem in ("one", "two"))
        assert one.stat().st_size > 2000
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("given", ["there", "there/", "made/", "./made/deep/"])
def test_a_picture_goes_into_a_folder_under_the_name_of_what_it_shows(lab, results, tmp_path, monkeypatch, given):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, ["plot", str(lab.results / "tiny"), "--kind", "accuracy", "--output", given])
    assert found.exit_code == 0, found.output
    written = sorted(str(path) for path in Path().rglob("*.*g"))
    assert written == [str(Path(given, f"tiny-accuracy.{ending}")) for ending in ("png", "svg")]


def test_a_picture_of_another_kind_is_refused(lab, results, tmp_path):
    asked = ["plot", str(lab.results / "tiny"), "--kind", "accuracy", "--output", str(tmp_path / "a.pdf")]
    found = CliRunner().invoke(app, asked)
    assert isinstance(found.exception, ResultError)
    assert "not as .pdf" in str(found.exception)
    assert list(tmp_path.glob("a*")) == []


def test_a_target_that_holds_nothing_says_what_there_is(lab, results, tmp_path):
    with pytest.raises(ResultError, match="neither a file, a folder nor a protocol"):
        collect(["nonsense"], lab.results)
    with pytest.raises(ResultError, match="no result of protocol 'digits-mlp'"):
        collect(["digits-mlp"], lab.results)
    with pytest.raises(ResultError, match="no results folder"):
        collect(["digits-mlp"], tmp_path / "runs")


def test_a_protocol_s_file_stands_for_its_results(lab, protocol):
    path = lab.protocol_file(changes={"axes": AXES, "architecture.options.widths": 4, "published": PRINTED})
    root = lab.root / "mine"
    for cell in cells(protocol, ["random"], [0], {"width": 4}):
        run_cell(cell, root, Settings(device="cpu", cache=lab.cache), At())
    found = collect([path], root)
    assert [(r.rule.name, r.axes, r.seed) for r in found.results] == [("random", {"width": 4}, 0)]
    assert len(found.protocols["tiny"].published) == len(PRINTED)
    asked = ["plot", path, "--kind", "accuracy", "--results", str(root), "--output", str(root / "a")]
    assert CliRunner().invoke(app, asked).exit_code == 0


def test_only_of_a_result_in_its_place_is_it_said_to_be_deleted(lab, results, tmp_path):
    placed = tmp_path / "runs" / "tiny" / "bp" / "seed-0.json"
    placed.parent.mkdir(parents=True)
    for path in (tmp_path / "notes.txt", tmp_path / "seed-0.json", tmp_path / "runs" / "plan.json", placed):
        path.write_text("{")
        with pytest.raises(ResultError) as error:
            collect([str(path)], tmp_path / "runs")
        assert ("Delete" in str(error.value)) == (path == placed)
        assert ("is no result file" in str(error.value)) == (path != placed)


def test_a_cell_given_twice_counts_once_and_seeds_that_differ_in_more_are_refused(lab, results, tmp_path):
    folder = str(lab.results / "tiny")
    assert len(collect([folder, folder], lab.results).results) == len(results)
    changed = results[0].model_copy(update={"protocol": results[0].protocol.model_copy(update={"hash": "0" * 64})})
    store.save(changed, tmp_path)
    with pytest.raises(ResultError, match="differ in more than their seed"):
        collect([folder, str(tmp_path)], lab.results)


def test_protocols_scored_by_different_metrics_need_one_to_be_named(tmp_path):
    asked = ["plot", "sre-l1", "cifar10-small", "--kind", "accuracy", "--results", str(RESULTS)]
    found = CliRunner().invoke(app, [*asked, "--output", str(tmp_path / "a")])
    with pytest.raises(ResultError, match=r"alignment.fc2: sre-l1; probe.test.accuracy: cifar10-small.*--metric"):
        raise found.exception


def test_without_matplotlib_the_error_says_how_to_get_it(lab, results, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(HebbBenchError, match=r"hebbbench\[plots\]"):
        draw(Request("gini", [str(lab.results)], lab.results))


def test_points_of_results_stand_in_numerical_order(results):
    assert points_of(reversed(results)) == [{"width": 4}, {"width": 64}]
