"""What every test runs under: no network, a cache of its own, a fixed number of threads; and how long each folder took."""

import atexit
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis.internal.conjecture import providers

ROOT = Path(__file__).parent.parent
LONG = "a study or a chaos run: --long, or make test-all"


def prepare_environment() -> None:
    """Before anything imports torch or a hub library: they read these once. Processes that a test starts inherit them."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false", MPLBACKEND="Agg")
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(n_threads(os.environ))
    if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker inherits the folder of the process that started it
        cache = tempfile.mkdtemp(prefix="prefloop-test-cache-")
        atexit.register(shutil.rmtree, cache, ignore_errors=True)
        os.environ["HF_HOME"] = cache  # nothing is read from, or left in, the cache of whoever runs the tests


def n_threads(environment: "os._Environ[str] | dict[str, str]") -> int:
    """PREFLOOP_TEST_THREADS where given, else one: sums come out the same on every machine, however many cores it has and
    whatever else it does. Nothing here is large enough to gain by more, and on a busy machine two wait for each other."""
    return int(environment.get("PREFLOOP_TEST_THREADS") or 1)


prepare_environment()


def data_folder() -> Path:
    """Where the development data sets would lie: they do not travel with the project."""
    return Path(os.environ.get("PREFLOOP_DATA") or ROOT.parent / "shared" / "data")


def no_data() -> str:
    return f"no development data in {os.path.relpath(data_folder(), ROOT)} (PREFLOOP_DATA names another folder)"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the development data sets; the test is skipped where there is none."""
    if not data_folder().is_dir():
        pytest.skip(no_data())
    return data_folder()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the long studies and the chaos runs")


def pytest_configure(config: pytest.Config) -> None:
    """Property tests: the same examples every time, new ones in the long runs; a busy machine is not a failure."""
    hypothesis.settings.register_profile(
        "prefloop",
        deadline=None,
        derandomize=not config.getoption("--long"),
        database=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("prefloop")
    if not config.getoption("--long"):
        draw_no_constants()


def draw_no_constants() -> None:
    """Hypothesis mixes in the numbers and words of our modules imported so far: with another order of the tests, or another
    division among processes, the examples would be others that nobody has seen."""
    if hasattr(providers, "_get_local_constants"):  # there since 6.131
        nothing = type(providers._local_constants)()
        providers._get_local_constants = lambda: nothing


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason=LONG))
        if item.get_closest_marker("data") and not data_folder().is_dir():
            item.add_marker(pytest.mark.skip(reason=no_data()))


seconds: dict[str, float] = defaultdict(float)
tests: dict[str, set[str]] = defaultdict(set)


def folder_of(nodeid: str) -> str:
    """tests/ops/test_gae.py::test_x -> tests/ops; a file that lies in tests itself stands for itself."""
    return "/".join(nodeid.partition("::")[0].split("/")[:2])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    seconds[folder_of(report.nodeid)] += report.duration
    if report.when == "call" and not report.skipped:
        tests[folder_of(report.nodeid)].add(report.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Where the time went, so that growth is seen before the budget is spent."""
    yield
    if not seconds:
        return
    terminalreporter.section("seconds per folder", sep="-")
    for folder in sorted(seconds, key=lambda name: -seconds[name]):
        terminalreporter.line(f"{seconds[folder]:8.1f}  {folder} ({len(tests[folder])} tests)")
    n_skipped = len(terminalreporter.stats.get("skipped", []))
    terminalreporter.line(f"{sum(seconds.values()):8.1f}  in all, {n_skipped} skipped")
