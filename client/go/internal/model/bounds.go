package model

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"

	"sealserve.example/sealserve/internal/cipher"
	"sealserve.example/sealserve/internal/parameters"
	"sealserve.example/sealserve/internal/printable"
	pb "sealserve.example/sealserve/internal/sealservev1"
	"sealserve.example/sealserve/internal/steps"
)

// Bounds of a description. Counts are checked before anything is converted: a message of a few bytes
// may ask for arrays of millions of numbers.
const (
	maxFeatures        = 1 << 20
	maxScores          = 1 << 16
	maxOpenItems       = 1024
	maxOffers          = 32
	maxCiphertextForms = 16
	maxOfferedScores   = 1 << 19 // of all offers together
	maxCurvePoints     = 1 << 18
	maxRequirements    = 64
	maxTextBytes       = 4096
	maxBytes           = 1 << 48 // that a cost or a limit may name
	maxSeconds         = 1e9
	maxReplyBytes      = 2 << 30
	minBits            = 8
	maxBits            = 80
	maxDigitBits       = 54 // more bits have to be an even number
)

func checkCounts(message *pb.Model) error {
	for _, text := range []string{message.GetName(), message.GetConfigId()} {
		if !printable.Is(text) {
			return errors.New("its name or configuration id is too long, or has characters that cannot be shown")
		}
	}
	if len(message.GetRequires()) > maxRequirements || !areShort(message.GetRequires()) {
		return errors.New("it requires too many capabilities, or one with too long a name")
	}
	input, result := message.GetInput(), message.GetOutput()
	features, scores := int64(input.GetFeatureCount()), int64(result.GetScoreCount())
	if features < 1 || features > maxFeatures || scores < 1 || scores > maxScores {
		return fmt.Errorf("%d features and %d scores; 1 to %d and 1 to %d are possible",
			features, scores, maxFeatures, maxScores)
	}
	isOneOrAll := func(count int) bool { return count == 1 || int64(count) == features }
	isNoneOrAll := func(count int) bool { return count == 0 || int64(count) == features }
	if !isOneOrAll(len(input.GetMinimum())) || !isOneOrAll(len(input.GetMaximum())) || !isOneOrAll(len(input.GetStep())) {
		return errors.New("minimum, maximum and step need one value each, or one for each feature")
	}
	if !isNoneOrAll(len(input.GetFeatureNames())) || !isNoneOrAll(len(input.GetGroup())) ||
		len(input.GetExactlyOne()) > len(input.GetGroup()) {
		return errors.New("names of features and groups need one for each feature, and groups a feature each")
	}
	if len(message.GetOffers()) > maxOffers || int64(len(message.GetOffers()))*scores > maxOfferedScores {
		return fmt.Errorf("%d offers for %d scores: too many", len(message.GetOffers()), scores)
	}
	return checkTexts(message)
}

func checkTexts(message *pb.Model) error {
	input, result := message.GetInput(), message.GetOutput()
	scores := int(result.GetScoreCount())
	points := 0
	for _, curve := range result.GetCurves() {
		points += len(curve.GetScores())
	}
	if (len(result.GetCurves()) != 0 && len(result.GetCurves()) != scores) || points > maxCurvePoints {
		return errors.New("its curves are not one for each score, or have too many points")
	}
	classes := result.GetClasses()
	labels := len(classes.GetIntegers().GetValues()) + len(classes.GetStrings().GetValues()) +
		len(classes.GetBooleans().GetValues()) + len(classes.GetDoubles().GetValues())
	if labels > scores+1 {
		return fmt.Errorf("%d labels for %d scores: too many", labels, scores)
	}
	if !areShort(input.GetFeatureNames()) || !areShort(classes.GetStrings().GetValues()) {
		return fmt.Errorf("the name of a column, or a label, has more than %d bytes", maxTextBytes)
	}
	if hasRepeats(input.GetFeatureNames()) {
		return errors.New("two columns have one name")
	}
	return checkColumns(input)
}

func checkColumns(input *pb.Input) error {
	count := len(input.GetColumns())
	if count > maxFeatures || (count > 0 && len(input.GetFeatureNames()) > 0) {
		return fmt.Errorf("%d columns: too many, or beside the names of features", count)
	}
	names := make([]string, count)
	allUnused, hasNames := count > 0, false
	for i, column := range input.GetColumns() {
		names[i] = column.GetName()
		hasNames = hasNames || names[i] != ""
		allUnused = allUnused && column.GetKind() == pb.Column_KIND_UNUSED
	}
	if !areShort(names) || (hasNames && hasRepeats(names)) {
		return errors.New("two columns have one name, or one has too long a name")
	}
	if allUnused {
		return errors.New("no step reads any of its columns")
	}
	if input.GetStepsId() == "" {
		if input.GetStepsBytes() != 0 || (count > 0 && int64(count) != int64(input.GetFeatureCount())) {
			return errors.New("without steps, each column is a feature")
		}
		return nil
	}
	if count == 0 || !isDigest(input.GetStepsId()) || input.GetStepsBytes() < 1 || input.GetStepsBytes() > steps.MaxBytes {
		return fmt.Errorf("its steps have no columns or no SHA-256, or not 1 to %d bytes", steps.MaxBytes)
	}
	return nil
}

func isDigest(text string) bool {
	_, err := hex.DecodeString(text)
	return err == nil && len(text) == 64 && strings.ToLower(text) == text
}

func areShort(texts []string) bool {
	for _, text := range texts {
		if len(text) > maxTextBytes {
			return false
		}
	}
	return true
}

func hasRepeats(texts []string) bool {
	seen := make(map[string]bool, len(texts))
	for _, text := range texts {
		if seen[text] {
			return true
		}
		seen[text] = true
	}
	return false
}

// checkOffer checks the numbers of an offer that no type checks.
func checkOffer(message *pb.Offer, scores int) error {
	classes := int64(message.GetClassesPerPolynomial())
	if classes < 1 || classes > int64(scores) {
		return &PackingError{fmt.Errorf("%d classes a polynomial, of %d scores", classes, scores)}
	}
	if message.GetRowsPerItem() == 0 || message.GetCiphertextsPerItem() == 0 {
		return &PackingError{errors.New("an item has no rows or no ciphertexts")}
	}
	cost, observed := message.GetCost(), message.GetObservedError()
	sizes := []uint64{cost.GetRequestBytes(), cost.GetReplyBytes(), cost.GetHeldBytes(), cost.GetKeyBytes() + 1}
	for _, size := range sizes {
		if size < 1 || size > maxBytes {
			return errors.New("its costs in bytes are zero or absurd")
		}
	}
	amounts := []float64{
		message.GetScoreErrorBound(), message.GetWeightRoundingErrorBound(), message.GetInputRoundingErrorBound(),
		message.GetExpectedScoreError(), observed.GetScoreError(), observed.GetRmsScoreError(), cost.GetServerSeconds(),
	}
	for _, amount := range amounts {
		if !isAmount(amount) {
			return errors.New("an error or the time of the service is negative or no number")
		}
	}
	for _, share := range []float64{observed.GetLabelDisagreement(), observed.GetExpectedLabelDisagreement()} {
		if !(share >= 0 && share <= 1) {
			return errors.New("a share of rows is below 0, above 1 or no number")
		}
	}
	if observed.GetRowCount() > maxBytes {
		return errors.New("its observed errors are of an absurd number of rows")
	}
	return nil
}

// ScoresError says that the integers of scores cannot be read: field is that of the offer.
type ScoresError struct {
	Field string
	text  string
}

func (e *ScoresError) Error() string { return e.text }

// checkScores checks that every integer score within the radii can be computed, and is a number.
func checkScores(message *pb.Offer, scores int, isSlots bool) error {
	scale, t := message.GetScoreScale(), message.GetParameters().GetPlainModulus()
	if !(scale > 0) || math.IsInf(scale, 1) {
		return &ScoresError{"score_scale", "the score scale is not above 0"}
	}
	if isSlots {
		scores = 0
	}
	if len(message.GetScoreCenters()) != scores || len(message.GetScoreRadii()) != scores {
		return &ScoresError{"score_centers", fmt.Sprintf("%d score centers and radii are needed", scores)}
	}
	for _, radius := range message.GetScoreRadii() {
		if radius < 0 || uint64(radius) > math.MaxInt64/2 || 2*uint64(radius)+1 >= t {
			return &ScoresError{"score_radii", "scores wrap around: their range is wider than the plaintext modulus"}
		}
	}
	greatest := uint64(0)
	for _, center := range message.GetScoreCenters() {
		amount := uint64(center)
		if center < 0 {
			amount = -amount
		}
		greatest = max(greatest, amount)
	}
	greatest += t / 2
	if greatest >= 1<<63 || math.IsInf(float64(greatest)/scale, 1) {
		return &ScoresError{"score_centers", "scores are too large"}
	}
	return nil
}

// ErrReplyBits means that replies of the published bits cannot be read.
var ErrReplyBits = errors.New("replies of the published bits cannot be unpacked, lifted or decrypted")

// replyBits checks and converts how replies are packed: see ReplyBits in model.proto.
func replyBits(message *pb.Offer, p *parameters.Parameters) (*cipher.ReplyBits, error) {
	bits := message.GetReplyBits()
	if bits == nil {
		return nil, nil
	}
	isPossible := func(count uint32) bool {
		return count >= minBits && count <= maxBits && (count <= maxDigitBits || count%2 == 0)
	}
	primes := bits.GetPrimeCount()
	if message.GetParameters().GetScheme() != pb.Scheme_SCHEME_BFV || !isPossible(bits.GetC0()) ||
		!isPossible(bits.GetC1()) || bits.GetC0() > bits.GetC1() ||
		primes < 1 || int64(primes) > int64(p.DataPrimes) {
		return nil, ErrReplyBits
	}
	// r N / 2^c1 + r / 2^c0 + t (N + 1) / (2 q') with r = (1 + 2^-7) t / 2
	n, t := big.NewInt(int64(p.N)), new(big.Int).SetUint64(p.T)
	r := new(big.Rat).SetFrac(new(big.Int).Mul(t, big.NewInt(129)), big.NewInt(256))
	power := func(exponent uint32) *big.Int { return new(big.Int).Lsh(big.NewInt(1), uint(exponent)) }
	cost := new(big.Rat).Mul(r, new(big.Rat).SetFrac(n, power(bits.GetC1())))
	cost.Add(cost, new(big.Rat).Mul(r, new(big.Rat).SetFrac(big.NewInt(1), power(bits.GetC0()))))
	lifted := new(big.Int).Lsh(parameters.Product(p.Primes[:primes]), 1)
	cost.Add(cost, new(big.Rat).SetFrac(new(big.Int).Mul(t, big.NewInt(int64(p.N)+1)), lifted))
	room := new(big.Rat).Sub(big.NewRat(1, 2), new(big.Rat).SetFrac(big.NewInt(1), power(57)))
	if cost.Cmp(room) >= 0 {
		return nil, ErrReplyBits
	}
	return &cipher.ReplyBits{C0: int(bits.GetC0()), C1: int(bits.GetC1()), Primes: int(primes)}, nil
}
