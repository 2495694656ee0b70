"""Pictures are drawn from what results and saved tensors hold, say what they cannot draw, and repeat their bytes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from conftest import At, Lab
from hebbbench.cell import cells
from hebbbench.cli import app
from hebbbench.errors import HebbBenchError, ResultError
from hebbbench.plots import accuracy, axis, curves, heatmap
from hebbbench.plots.draw import Request, draw
from hebbbench.plots.series import collect, metric_line, points_of, spread
from hebbbench.plots.style import lay_out, styled
from hebbbench.recipe import Recipe
from hebbbench.record import store, tensors
from hebbbench.training.run import Settings, run_cell

SOFT = {"optimizer": {"lr": 0.01}, "init": {"law": "normal", "radius": 25.0}}
AXES = {"width": {"path": "architecture.options.widths", "values": [4, 8, 64]}}


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


def lines_of(axis) -> dict[str, list[tuple[float, float]]]:
    return {
        line.get_label(): [(float(x), float(y)) for x, y in line.get_xydata()]
        for line in axis.get_lines()
        if not line.get_label().startswith("_")
    }


def test_a_curve_is_the_mean_over_seeds_at_each_epoch(results):
    with styled():
        figure = curves.draw(results, "gini", "diagnostics.gini.fc1")
    own = [r for r in results if r.axes == {"width": 64} and r.rule.name == "bp"]
    expected = [sum(r.curves["diagnostics.gini.fc1"][0][1] for r in own) / 2]
    panel = next(axis for axis in figure.axes if "64" in axis.get_title())
    assert lines_of(panel)["bp"][0][1] == pytest.approx(expected[0])
    assert len(figure.axes) == 2


def test_accuracy_against_an_axis_is_in_percent_with_the_spread_over_seeds(results):
    with styled():
        figure = accuracy.draw(results, "width", "probe.test.accuracy", None, published=False)
    (axis,) = figure.axes
    values = [r.metrics["probe.test.accuracy"].value for r in results if r.axes["width"] == 4 and r.rule.name == "bp"]
    drawn = {c.get_label(): c for c in axis.containers}["bp"].lines[0].get_xydata()
    assert drawn[0].tolist() == pytest.approx([4, 100 * sum(values) / 2])
    assert axis.get_xscale() == "log"


def test_accuracy_against_a_cost_takes_each_run_s_own(results):
    line = metric_line("bp", [r for r in results if r.rule.name == "bp"], lambda r: r.cost.steps, "probe.test.accuracy")
    assert line is not None
    assert line.x == (float(results[0].cost.steps),)
    with styled(), pytest.raises(ResultError, match="neither an axis nor a cost 'colour'"):
        accuracy.draw(results, "colour", "probe.test.accuracy", None, published=False)


def test_a_spread_averages_seeds_and_has_none_for_one():
    line = spread("a", [(1.0, 2.0), (1.0, 4.0), (2.0, 5.0)])
    assert (line.x, line.mean, line.sd, line.seeds) == ((1.0, 2.0), (3.0, 5.0), (pytest.approx(2**0.5), 0.0), 2)


def varied(result, noise: float, decay: float, value: float):
    metric = result.metrics["probe.test.accuracy"].model_copy(update={"value": value})
    return result.model_copy(update={"axes": {"noise": noise, "decay": decay}, "metrics": {"alignment.fc2": metric}})


def test_a_heat_map_lays_its_zero_contour_between_the_signs(results):
    grid = [varied(results[0], n, d, d - n) for n in (0.0, 0.1, 0.2) for d in (0.05, 0.15)]
    with styled():
        figure = heatmap.draw(grid, "decay", "noise", "alignment.fc2")
    axis = figure.axes[0]
    drawn = np.asarray(axis.images[0].get_array())
    assert drawn[1, 0] == pytest.approx(-0.05)  # noise 0.1 is the second row, decay 0.05 the first column
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("weight decay γ", "parameter noise σ")
    segments = [s for c in axis.collections if hasattr(c, "get_paths") for s in c.get_paths()]
    assert segments
    with styled():
        assert heatmap.draw(grid, None, None, "alignment.fc2").axes[0].get_ylabel() == "parameter noise σ"
    with styled(), pytest.raises(ResultError, match="one rule that differ in two numeric axes"):
        heatmap.draw(results, None, None, "probe.test.accuracy")


def test_a_metric_against_an_axis_has_a_line_for_each_value_of_the_others(results):
    noises, decays = (0.0, 0.1), (0.0, 0.01, 0.1)
    grid = [varied(results[0], n, d, d - n) for n in noises for d in decays]
    with styled():
        figure = axis.draw(grid, "decay", "alignment.fc2")
    (drawn,) = figure.axes
    found = {c.get_label(): c.lines[0].get_xydata() for c in drawn.containers}
    assert list(found) == ["parameter noise σ 0", "parameter noise σ 0.1"]
    assert found["parameter noise σ 0.1"].tolist() == pytest.approx(np.array([[d, d - 0.1] for d in decays]))
    assert (drawn.get_xscale(), drawn.get_xlabel()) == ("symlog", "weight decay γ")
    collapsed = grid[-1].metrics["alignment.fc2"].model_copy(update={"value": None, "reason": "collapsed"})
    grid.append(grid[-1].model_copy(update={"metrics": {"alignment.fc2": collapsed}, "seed": 1}))
    with styled():
        (drawn,) = axis.draw(grid, "decay", "alignment.fc2").axes
    with styled():
        gone = axis.draw([*grid[:3], grid[-1]], "decay", "alignment.fc2").axes[0].texts
    assert [text.get_text() for text in gone] == ["collapsed"]
    hollow = [line for line in drawn.get_lines() if line.get_markerfacecolor() == "white"]
    assert [line.get_xydata().tolist() for line in hollow] == [[], [[0.1, 0.0]]]
    with styled(), pytest.raises(ResultError, match=r"numeric axis 'colour'.*decay"):
        axis.draw(grid, "colour", "alignment.fc2")
    with styled(), pytest.raises(ResultError, match=r"no result has the metric 'alignment.fc3'.*alignment.fc2"):
        axis.draw(grid, "decay", "alignment.fc3")


def test_lines_stand_in_the_order_of_their_numbers(results):
    grid = [varied(results[0], n, d, d - n) for n in (0.5, 0.02, 0.1, 0) for d in (0.0, 0.01)]
    with styled():
        (drawn,) = axis.draw(grid, "decay", "alignment.fc2").axes
    assert [c.get_label() for c in drawn.containers] == [f"parameter noise σ {n}" for n in ("0", "0.02", "0.1", "0.5")]


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
    tensors.save(path, {"fc1/last": torch.ones(2, 6)}, "made", {"fc1": (1, 3, 2)})
    with pytest.raises(ResultError, match="1 or 3 channels"):
        tensors.load(path).images("fc1", tensors.load(path).rows("fc1", "last"))
    with pytest.raises(ResultError, match="--diagnostics"):
        tensors.load(path).rows("fc1", "update")


@pytest.mark.parametrize("kind", ["accuracy", "axis", "gini", "alignment", "features", "updates"])
def test_every_picture_is_written_twice_and_repeats_its_bytes(lab, results, kind, tmp_path):
    folder = lab.results / "tiny"
    file = folder / "bp" / "width=64" / "seed-0.safetensors"
    target = str(file if kind in ("features", "updates") else folder)
    for stem in ("one", "two"):
        asked = ["plot", target, "--kind", kind, "--output", str(tmp_path / stem)]
        found = CliRunner().invoke(app, asked)
        assert found.exit_code == 0, found.output
    for suffix in (".png", ".svg"):
        one, two = (tmp_path / f"{stem}{suffix}" for stem in ("one", "two"))
        assert one.stat().st_size > 2000
        assert one.read_bytes() == two.read_bytes()


def test_a_target_that_holds_nothing_says_what_there_is(lab):
    with pytest.raises(ResultError, match="neither a file, a folder nor a protocol"):
        collect(["nonsense"], lab.results)
    with pytest.raises(ResultError, match="no result of protocol 'digits-mlp'"):
        collect(["digits-mlp"], lab.results)


def test_without_matplotlib_the_error_says_how_to_get_it(lab, results, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(HebbBenchError, match=r"hebbbench\[plots\]"):
        draw(Request("gini", [str(lab.results)], lab.results))


def test_points_of_results_stand_in_numerical_order(results):
    assert points_of(reversed(results)) == [{"width": 4}, {"width": 64}]
