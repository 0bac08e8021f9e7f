"""Errors of settings; every text says what to do about the fault.

InputError                an option contradicts another one, or what there is to serve
└── OptionError           an option's value is malformed
AddressError              an address cannot be listened on
KeyStoreSettingsError     the key store cannot be used as configured
"""

from sealserve.errors import InputError, SealserveError


class OptionError(InputError):
    """An option's value is malformed; the text is one line that names the option."""


class AddressError(SealserveError):
    """The address cannot be listened on; the text says why."""


class KeyStoreSettingsError(SealserveError):
    """The key store cannot be used as configured; the text says why and holds no secret."""
