"""Limits of published steps: what a client refuses, and a service does not publish.

They bound the memory and the time of a row before any row is seen. A hostile service chooses the
steps. Whatever it chooses, the work on a row depends on the steps alone, except that text takes
time by its length.
"""

MAX_STEPS_BYTES = 16 << 20
"""The most bytes of serialized steps. Protobuf takes up to 30 times as many for empty messages."""
MAX_STEPS = 1 << 12
"""The most steps."""
MAX_VALUES = 1 << 21
"""The most values of a row: its columns and the outputs of all steps."""
MAX_INPUTS = 1 << 22
"""The most inputs of all steps together."""
MAX_OPERATIONS = 1 << 25
"""The most elementary operations on a row, counted by `Step.operations`: a second at most."""
OPERATIONS_A_CALL = 1 << 9
"""How many operations take as long as the calls of NumPy for one column or tree, about."""
OPERATIONS_A_SIZE = 1 << 17
"""How many operations take as long as all n-grams of one size of a text of 10,000 characters."""
MAX_RULES = 1 << 16
"""The most columns with a rule of their own, and splits by category, of all steps together."""
MAX_CATEGORIES = 1 << 20
"""The most categories, terms and other texts of all steps together."""
MAX_TEXT_BYTES = 4096
"""The most bytes of a category or a term, in UTF-8."""
MAX_NODES = 1 << 21
"""The most nodes of all trees together."""
MAX_CATEGORY = 1 << 16
"""One more than the greatest category of a node."""
MAX_MEMBERSHIPS = 1 << 24
"""The most cells of the tables of categories and nodes of all trees together."""
MAX_DEGREE = 15
"""The greatest degree of a polynomial on an interval."""
MAX_FACTORS = 32
"""The most factors of a product."""
MAX_NGRAM = 16
"""The most tokens of an n-gram."""
MAX_CHARACTERS = 1 << 20
"""The most characters of a text of a row. A row with a longer text is refused."""
MAX_DEPTH = 1 << 12
"""The most nodes between the root of a tree and a leaf."""
