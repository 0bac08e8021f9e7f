"""The token that exporting a secret key asks for. Searching for this module's name finds every use of one.

>>> from sealserve.secret_key_access import TOKEN
>>> data = key.export(TOKEN)
"""

from typing import final

__all__ = ["TOKEN", "SecretKeyAccess"]


@final
class SecretKeyAccess:
    """The type of TOKEN."""


TOKEN = SecretKeyAccess()
