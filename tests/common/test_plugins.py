import pytest

from presage.common import plugins
from presage.common.plugins import UnknownNameError
from presage.marl.aorpo import AORPOConfig
from presage.marl.masac import MASACConfig


def test_names_lead_to_what_is_installed_under_them_and_back() -> None:
    assert plugins.load("method", "aorpo") is AORPOConfig
    assert plugins.name_of("method", AORPOConfig) == "aorpo"
    assert plugins.name_of("method", MASACConfig) is None
    assert "greedy_spread" in plugins.names("reference")


def test_every_installed_name_loads() -> None:
    kinds: tuple[plugins.Kind, ...] = ("method", "registry", "reference", "kernel")
    assert all(callable(plugins.load(kind, name)) for kind in kinds[:1] + kinds[2:] for name in plugins.names(kind))
    registry = plugins.load("registry", "games")
    assert {"make", "from_env", "names"} <= set(vars(registry))


def test_an_unknown_name_is_answered_with_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="no method is called 'aorop'; did you mean 'aorpo'") as refused:
        plugins.load("method", "aorop")
    assert str(refused.value).startswith("no method")
    known = ", ".join(map(repr, sorted(plugins.names("method"))))
    with pytest.raises(UnknownNameError, match=f"known are {known}"):
        plugins.load("method", "xyzzy")
