"""The EI slots layout, which is built into encrypted-inference 0.9: CKKS, a feature a slot.

An item is one row. The client of encrypted-inference encrypts for it; the SDK only carries the
bytes.
"""

from sealserve.he.layouts.base import Layout
from sealserve.he.parameters import EncryptionParameters, ParameterSet, Scheme

# The primes are SEAL's CoeffModulus::Create(8192, {60, 40, 40, 60}).
EI_PARAMETER_SET = ParameterSet("ei-8192", 8192, (0xFFFFFFFFFFE8001, 0xFFFFF4C001, 0xFFFFFDC001, 0xFFFFFFFFFFFC001))
EI_PARAMETERS = EncryptionParameters(EI_PARAMETER_SET, scheme=Scheme.CKKS, scale=2.0**40)

EI_SLOTS = Layout(name="ei-slots", scheme=Scheme.CKKS, open_parameter_sets=(EI_PARAMETER_SET,))
