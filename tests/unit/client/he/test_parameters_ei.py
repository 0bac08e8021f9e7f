"""Parameters of CKKS, and those that encrypted-inference 0.9 has built in."""

import math

import pytest
import seal

from sealserve.errors import ParameterError
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.ei_slots import EI_PARAMETER_SET, EI_PARAMETERS
from sealserve.he.parameters import EncryptionParameters, Scheme


def test_the_primes_are_those_that_seal_chooses() -> None:
    chosen = seal.CoeffModulus.Create(8192, [60, 40, 40, 60])
    assert EI_PARAMETER_SET.primes == tuple(prime.value() for prime in chosen)


def test_seal_takes_the_parameters_and_switches_down_to_one_prime() -> None:
    context = _seal.context(EI_PARAMETERS)
    assert context.using_keyswitching()
    levels = _seal.data_parms_ids(context)
    assert len(levels) == len(EI_PARAMETER_SET.data_primes)
    assert levels[0] == _seal.fresh_parms_id(context)


@pytest.mark.parametrize("scale", [0.0, -1.0, 0.5, 2.0**140, math.inf, math.nan])
def test_a_scale_that_is_no_scale(scale: float) -> None:
    with pytest.raises(ParameterError, match="scale"):
        EncryptionParameters(EI_PARAMETER_SET, scheme=Scheme.CKKS, scale=scale)


def test_numbers_of_the_other_scheme() -> None:
    with pytest.raises(ParameterError, match="no plaintext modulus"):
        EncryptionParameters(EI_PARAMETER_SET, 65537, Scheme.CKKS, 2.0**40)
    for scale in (2.0**40, math.nan):
        with pytest.raises(ParameterError, match="scale"):
            EncryptionParameters(LAYOUTS["row"].open_parameter_sets[0], 1 << 20, scale=scale)
    with pytest.raises(ParameterError, match=r"these are 0 and 1\.0$"):
        EncryptionParameters(LAYOUTS["row"].open_parameter_sets[0])
