import subprocess
import sys

import pytest

import prefloop
from prefloop.errors import NotInstalled


@pytest.mark.parametrize("name", prefloop.API)
def test_every_public_name_leads_to_something_that_can_be_called(name):
    assert callable(getattr(prefloop, name))


def test_a_name_asked_for_twice_is_one_thing():
    from prefloop import Prompt
    from prefloop.records import Prompt as Defined

    assert Prompt is Defined is prefloop.Prompt


def test_nothing_is_imported_before_it_is_asked_for():
    program = (
        "import sys, prefloop\n"
        "brought = sorted({'numpy', 'pydantic', 'torch', 'yaml'} & set(sys.modules))\n"
        "assert not brought, brought\n"
        "prefloop.Prompt.of('hello')\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_an_unknown_name_is_an_attribute_error_that_lists_the_public_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'Promt'; the public names are Prompt, "):
        prefloop.Promt  # noqa: B018
    with pytest.raises(ImportError):
        exec("from prefloop import Promt")


def test_modules_can_be_imported_from_the_package_as_ever():
    from prefloop import records

    assert records.Prompt is prefloop.Prompt


@pytest.fixture
def asked_anew(monkeypatch):
    """Puts a name of the API somewhere else, as if it had never been used."""

    def put(name: str, place: str) -> None:
        monkeypatch.setitem(prefloop.API, name, place)
        monkeypatch.delitem(vars(prefloop), name, raising=False)

    return put


def test_a_missing_package_is_named_with_the_line_that_installs_it(asked_anew):
    asked_anew("gae", "torch_that_is_not_here:gae")
    with pytest.raises(
        NotInstalled, match=r"prefloop\.gae needs the package 'torch_that_is_not_here'(.|\n)*pip install 'prefloop\[train\]'"
    ):
        prefloop.gae  # noqa: B018


def test_a_missing_module_of_our_own_is_not_dressed_up_as_a_missing_package(asked_anew):
    asked_anew("gae", "prefloop.nowhere:gae")
    with pytest.raises(ModuleNotFoundError, match=r"prefloop\.nowhere"):
        prefloop.gae  # noqa: B018


def test_every_public_name_is_listed_by_dir():
    assert set(prefloop.API) <= set(dir(prefloop)) and "__version__" in dir(prefloop)
