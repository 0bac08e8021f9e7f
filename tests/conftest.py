"""Fixtures of most tests: a server of scikit-learn's digits, and an encrypted-inference user."""

import os
from collections.abc import Iterator

import hypothesis
import pytest
from threadpoolctl import threadpool_limits

from sealserve.client import Client
from tests.support.azurite import Azurite, running_azurite
from tests.support.digits import Digits, digits
from tests.support.ei_user import EIUser
from tests.support.raw import RawClient
from tests.support.serving import HANG_SECONDS, digits_registry, running_server

# No test fails because a machine is busy: none has a deadline.
hypothesis.settings.register_profile("any", deadline=None)
hypothesis.settings.load_profile("any")
# In CI the same examples every time: new ones are for those who can look into what they find.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI") == "true":
    hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="session", autouse=True)
def _one_core_a_product() -> Iterator[None]:
    """As a serving process does it."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def digits_model() -> Digits:
    estimator, X = digits()
    return Digits(estimator, X[1000:1300], estimator.decision_function(X[1000:1300]))


@pytest.fixture(scope="session")
def digits_server(digits_model: Digits) -> Iterator[str]:
    """The address of a server of the digits model."""
    with running_server(digits_registry(digits_model.estimator)) as address:
        yield address


@pytest.fixture(scope="session")
def ei_user() -> EIUser:
    return EIUser()


@pytest.fixture
def client(digits_server: str) -> Iterator[Client]:
    with Client(digits_server, timeout_seconds=HANG_SECONDS) as client:
        yield client


@pytest.fixture
def raw(digits_server: str) -> Iterator[RawClient]:
    with RawClient(digits_server) as raw:
        yield raw


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    with running_azurite() as azurite:
        yield azurite
