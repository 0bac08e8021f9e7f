"""The token that exporting a secret key requires.

A search for the name of this module finds every place that exports a key.

>>> from sealserve.secret_key_access import TOKEN
>>> data = key.export(TOKEN)
"""

from typing import final

__all__ = ["TOKEN", "SecretKeyAccess"]


@final
class SecretKeyAccess:
    """The type of TOKEN. There is one instance."""


TOKEN = SecretKeyAccess()
