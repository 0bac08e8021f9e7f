package steps

// What is refused of published steps before a row is seen. A hostile service chooses the steps.
// Whatever it chooses, the work on a row depends on the steps alone, except that text takes time by
// its length.
const (
	// MaxBytes is the most bytes of serialized steps.
	MaxBytes = 16 << 20

	maxMessages     = 1 << 20 // in serialized steps
	maxSteps        = 1 << 12
	maxValues       = 1 << 21 // of a row: its columns and the outputs of all steps
	maxInputs       = 1 << 22 // of all steps together
	maxOperations   = 1 << 25 // on a row: a second at most
	operationsARule = 1 << 9
	operationsASize = 1 << 17 // of n-grams of one size of a text of 10,000 characters
	maxRules        = 1 << 16 // columns with a rule of their own, and splits by category
	maxTexts        = 1 << 20 // categories, terms and other texts
	maxTextBytes    = 4096
	maxNodes        = 1 << 21
	maxCategory     = 1 << 16
	maxMemberships  = 1 << 24 // cells of the tables of categories and nodes
	maxDegree       = 15
	maxFactors      = 32
	maxNgram        = 16
	maxCharacters   = 1 << 20 // of a text of a row
	maxDepth        = 1 << 12 // nodes between the root of a tree and a leaf
)
