"""The descriptions that a client knows."""

import dataclasses

from sealserve._codec.configurations import MAX_CONFIGURATIONS, MAX_WITH_STEPS, Configurations
from sealserve.protocol.model import Model
from tests.support.step_models import PROGRAM, served_with_steps

MODEL = served_with_steps().model


def named(config_id: str, *, has_steps: bool) -> Model:
    """The description of a model of that id."""
    return dataclasses.replace(MODEL, config_id=config_id, steps=PROGRAM if has_steps else None)


def ids(configurations: Configurations) -> list[str]:
    return [model.config_id for model in configurations.models]


def test_few_descriptions_with_steps_are_known() -> None:
    """Steps take far more memory than a description, and a hostile service names new ones."""
    configurations = Configurations()
    for number in range(MAX_CONFIGURATIONS - MAX_WITH_STEPS):
        configurations.add(named(f"plain {number}", has_steps=False))
    for number in range(10):
        configurations.add(named(f"steps {number}", has_steps=True))
    plain = [f"plain {number}" for number in range(MAX_CONFIGURATIONS - MAX_WITH_STEPS)]
    assert ids(configurations) == [*plain, "steps 8", "steps 9"]
    configurations.use("steps 8")
    configurations.add(named("steps 10", has_steps=True))
    assert ids(configurations) == [*plain, "steps 8", "steps 10"], "the one used least recently goes"
    assert configurations.find("steps 9") is None


def test_descriptions_without_steps_take_the_place_of_the_one_used_least_recently() -> None:
    configurations = Configurations()
    for number in range(MAX_CONFIGURATIONS + 3):
        configurations.add(named(str(number), has_steps=False))
    assert ids(configurations) == [str(number) for number in range(3, MAX_CONFIGURATIONS + 3)]
