"""Layouts: the table of the ways in which rows, features and scores lie in ciphertexts.

To add a layout, write a module with its packing and its `Layout`, enter it in `LAYOUTS`, and give
it a number in parameters.proto. In the service, `engines.offering` has the table of engines.
"""

from sealserve.he.layouts.base import Layout, Packing, polynomial_groups
from sealserve.he.layouts.column import COLUMN
from sealserve.he.layouts.ei_slots import EI_SLOTS
from sealserve.he.layouts.row import ROW

__all__ = ["LAYOUTS", "Layout", "Packing", "polynomial_groups"]

LAYOUTS = {layout.name: layout for layout in (ROW, COLUMN, EI_SLOTS)}
"""Every layout by its name, in the order in which they are offered."""
