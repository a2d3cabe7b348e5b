from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import fewstep as fs
from fewstep.report import coefficients, inspected


@pytest.mark.parametrize("solver", [fs.classical.midpoint(2), fs.classical.euler(1)], ids=lambda s: s.name)
def test_coefficients_draw_times_and_reduced_form(tmp_path, solver):
    figure = coefficients(solver)
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "coefficients.png")
    left, middle, right = figure.axes[:3]
    np.testing.assert_allclose(left.lines[1].get_ydata(), [*solver.times, solver.end])
    np.testing.assert_allclose(middle.lines[1].get_ydata(), np.ones(solver.nfe))
    assert right.images[0].get_array().shape == (solver.nfe, solver.nfe)


def test_coefficients_hide_what_is_zero():
    """Two midpoint steps: x1 = .25 u0, x2 = .5 u1, x3 = .5 u1 + .25 u2, x4 = .5 u1 + .5 u3."""
    picture = coefficients(fs.classical.midpoint(2)).axes[2].images[0].get_array()
    expected = [[0.25, 0, 0, 0], [0, 0.5, 0, 0], [0, 0.5, 0.25, 0], [0, 0.5, 0, 0.5]]
    np.testing.assert_allclose(picture.filled(0), expected)
    np.testing.assert_array_equal(np.ma.getmaskarray(picture), np.array(expected) == 0)


def test_an_inspection_is_drawn_below_the_coefficients(tmp_path):
    facts = fs.inspect(fs.classical.midpoint(2))
    figure = inspected(facts)
    figure.savefig(tmp_path / "inspected.png")
    panels = figure.axes[:6]
    np.testing.assert_allclose(panels[0].lines[1].get_ydata(), [0, 0.25, 0.5, 0.75, 1])
    stability, growth, gains = panels[3:]
    np.testing.assert_allclose(stability.lines[0].get_ydata(), np.abs(facts.stability.amplification[0]))
    np.testing.assert_allclose(stability.lines[1].get_ydata(), np.exp([0, -0.5, -1]))
    np.testing.assert_allclose(growth.lines[0].get_ydata(), [1, 0, 1, 0, 1])
    assert [bar.get_height() for bar in gains.patches] == [0, 0.5, 0, 0.5]


def test_learned_times_and_scales_of_a_scale_time_solver_are_drawn(tmp_path):
    family = fs.families.ScaleTime("ralston", 2)  # whose nodes are not at equal distances
    theta = torch.linspace(-0.3, 0.4, family.size, dtype=torch.float64)
    figure = inspected(fs.inspect(family.solver(theta)))
    figure.savefig(tmp_path / "inspected.png")
    times, scales, slopes = figure.axes[6:9]
    nodes = family.nodes(theta)
    np.testing.assert_allclose(times.lines[1].get_xdata(), [0, 1 / 3, 1 / 2, 5 / 6, 1])
    np.testing.assert_allclose(times.lines[1].get_ydata(), nodes.t)
    np.testing.assert_allclose(scales.lines[1].get_ydata(), nodes.s)
    np.testing.assert_allclose(slopes.lines[0].get_ydata(), nodes.dt[:-1])  # unused at the last node
    np.testing.assert_allclose(slopes.lines[1].get_ydata(), nodes.ds[:-1])


@pytest.mark.parametrize("change", [{"s": "one"}, {"s": [1.0]}, {"t": None}, {"r": [0.0, "x"]}])
def test_damaged_scales_are_not_drawn(change):
    solver = fs.families.ScaleTime("midpoint", 1).solver()
    damaged = replace(solver, family={**solver.family, **change})
    assert len(inspected(fs.inspect(damaged)).axes) == 7  # six panels and a bar of colours


def test_an_inspection_without_stability_is_drawn(tmp_path):
    solver = replace(fs.classical.heun(2), prediction="noise", schedule=fs.schedules.VE())
    figure = inspected(fs.inspect(solver))
    figure.savefig(tmp_path / "inspected.png")
    assert not figure.axes[3].lines
