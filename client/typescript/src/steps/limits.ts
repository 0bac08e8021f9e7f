/**
 * Limits of published steps: what a client refuses.
 *
 * They bound the memory and the time of a row before any row is seen. A hostile service chooses the
 * steps. Whatever it chooses, the work on a row depends on the steps alone, except that text takes
 * time by its length.
 */

/** The most bytes of serialized steps. */
export const MAX_STEPS_BYTES = 16 << 20;
/** The most steps. */
export const MAX_STEPS = 1 << 12;
/** The most values of a row: its columns and the outputs of all steps. */
export const MAX_VALUES = 1 << 21;
/** The most inputs of all steps together. */
export const MAX_INPUTS = 1 << 22;
/** The most elementary operations on a row. */
export const MAX_OPERATIONS = 1 << 25;
/** How many operations one column or tree counts as, beside its own. */
export const OPERATIONS_A_CALL = 1 << 9;
/** How many operations the n-grams of one size of a text count as. */
export const OPERATIONS_A_SIZE = 1 << 17;
/** The most columns with a rule of their own, and splits by category, of all steps together. */
export const MAX_RULES = 1 << 16;
/** The most categories, terms and other texts of all steps together. */
export const MAX_CATEGORIES = 1 << 20;
/** The most bytes of a category or a term, in UTF-8. */
export const MAX_TEXT_BYTES = 4096;
/** The most nodes of all trees together. */
export const MAX_NODES = 1 << 21;
/** One more than the greatest category of a node. */
export const MAX_CATEGORY = 1 << 16;
/** The most pairs of a category and a split of all trees together. */
export const MAX_MEMBERSHIPS = 1 << 24;
/** The greatest degree of a polynomial on an interval. */
export const MAX_DEGREE = 15;
/** The most factors of a product. */
export const MAX_FACTORS = 32;
/** The most tokens of an n-gram. */
export const MAX_NGRAM = 16;
/** The most characters of a text of a row. A row with a longer text is refused. */
export const MAX_CHARACTERS = 1 << 20;
/** The most nodes between the root of a tree and a leaf. */
export const MAX_DEPTH = 1 << 12;
