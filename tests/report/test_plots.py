import matplotlib
import pytest

from prefloop.report.plots import INKS, Line, finite_range, ink_of, panel, tick
from tests.report.reading import Page

LINE = Line(x=[0, 1, 2], y=[0.0, 2.0, 1.0], ink="ppo", band=([-1.0, 1.0, 0.0], [1.0, 3.0, 2.0]), has_points=True, peak=1)


def drawn(*lines: Line, name: str = "p", **changes) -> str:
    return panel(lines, **{"name": name, "title": "T", "x_label": "steps", "y_label": "reward", **changes}).text


def test_a_drawing_has_its_labels_its_ink_and_no_style_of_its_own():
    page = Page(drawn(LINE))
    assert page.open == [] and page.named("title")
    assert "steps" in page.text and "reward" in page.text and "wordx" not in page.text
    classes = page.all("class")
    assert "s-ppo" in classes and "s-grid" in classes
    assert page.all("style") == [] and "#0a0a" not in drawn(LINE)


def test_labels_may_be_chinese_or_hostile_or_look_like_mathematics():
    for label in ("√KL（纳特）", "<script>", r"$\frac{", "wordx"):
        assert label in Page(drawn(LINE, x_label=label)).text


def test_a_dashed_line_is_dashed_and_a_peak_gets_a_ring():
    plain = Line(x=[0, 1], y=[0.0, 1.0], ink="ppo")
    assert drawn(plain).count("stroke-dasharray") == 0
    assert drawn(Line(x=[0, 1], y=[0.0, 1.0], ink="ppo", is_dashed=True)).count("stroke-dasharray") == 1
    ringed = drawn(Line(x=[0, 1], y=[0.0, 1.0], ink="ppo", peak=1))
    assert ringed.count("<use") == drawn(plain).count("<use") + 1


def test_two_drawings_on_a_page_share_no_id():
    first, second = Page(drawn(LINE, name="a")), Page(drawn(LINE, name="b"))
    assert first.all("id") and not set(first.all("id")) & set(second.all("id"))
    assert all(link.removeprefix("#") in first.all("id") for link in first.all("href"))


def test_a_reader_s_own_matplotlib_settings_change_nothing(monkeypatch: pytest.MonkeyPatch):
    before = drawn(LINE)
    with matplotlib.rc_context({"font.size": 30, "axes.titlepad": 40.0, "xtick.major.pad": 20.0, "svg.fonttype": "path"}):
        assert drawn(LINE) == before
        assert matplotlib.rcParams["font.size"] == 30  # and ours do not leak out


def test_values_that_are_not_numbers_leave_a_gap_and_no_trace():
    gappy = drawn(Line(x=[0, 1, 2, 3, 4], y=[0.0, 1.0, float("nan"), 1.0, float("inf")], ink="ppo"))
    assert "nan" not in gappy and "inf" not in gappy


def test_strangers_get_inks_of_their_own_in_order():
    policies = ["sft", "simpo", "ipo", "kto", "orpo"]
    assert [ink_of(name, policies) for name in policies] == ["sft", "other_0", "other_1", "other_2", "other_0"]
    assert all(ink_of(name, policies) in INKS for name in policies)


def test_ticks_stand_for_themselves():
    assert [tick(value, 0) for value in (0.0, -0.5, 1500.0, 20_000.0, 2.5e-5)] == ["0", "−0.5", "1,500", "20k", "2.5e−5"]


def test_a_range_holds_every_finite_value_with_air_on_both_sides():
    low, high = finite_range([1.0, None, float("nan")], None, [3.0, float("inf")]) or (0.0, 0.0)
    assert low < 1.0 and high > 3.0 and high - low < 2.5
    assert finite_range([None], []) is None
    assert finite_range([2.0]) == (1.5, 2.5)
