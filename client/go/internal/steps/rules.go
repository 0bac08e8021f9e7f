package steps

import (
	"errors"
	"fmt"
	"math"

	pb "sealserve.example/sealserve/internal/sealservev1"
)

// budget is what all steps together have taken of their limits.
type budget struct{ operations, texts, nodes, memberships int }

// addTexts counts texts of all steps.
func (b *budget) addTexts(count int) error {
	if b.texts += count; b.texts > maxTexts {
		return fmt.Errorf("the steps have more than %d categories and terms", maxTexts)
	}
	return nil
}

// makeRule checks and converts the kind of a step, whose inputs are texts or numbers.
func makeRule(message *pb.Step, isText []bool, total *budget) (rule, error) {
	switch kind := message.GetKind().(type) {
	case *pb.Step_OneHot:
		return makeOneHot(kind.OneHot, isText, total)
	case *pb.Step_Lookup:
		return makeLookup(kind.Lookup, isText, total)
	case *pb.Step_Missing:
		return makeMissing(kind.Missing, len(isText))
	case *pb.Step_Impute:
		return makeImpute(kind.Impute, isText, total)
	case *pb.Step_Text:
		if len(isText) != 1 || !isText[0] {
			return nil, errors.New("one text is needed as input")
		}
		return makeText(kind.Text, total)
	}
	for _, is := range isText {
		if is {
			return nil, errors.New("numbers are needed as inputs")
		}
	}
	count := len(isText)
	switch kind := message.GetKind().(type) {
	case *pb.Step_Affine:
		return makeAffine(kind.Affine, count)
	case *pb.Step_Bins:
		return makeBins(kind.Bins, count)
	case *pb.Step_Table:
		return makeTable(kind.Table, count)
	case *pb.Step_Piecewise:
		return makePiecewise(kind.Piecewise, count)
	case *pb.Step_Monomials:
		return makeMonomials(kind.Monomials, count)
	case *pb.Step_Elementwise:
		return makeElementwise(kind.Elementwise, count)
	case *pb.Step_Normalize:
		return makeNormalize(kind.Normalize, count)
	case *pb.Step_Matrix:
		return makeMatrix(kind.Matrix, count)
	case *pb.Step_Trees:
		return makeTrees(kind.Trees, count, total)
	default:
		return nil, ErrUnknown
	}
}

func isFinite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// checkNumbers checks that there are so many numbers, and that all are finite.
func checkNumbers(what string, values []float64, count int) error {
	if len(values) != count {
		return fmt.Errorf("%d %s are needed, not %d", count, what, len(values))
	}
	for _, value := range values {
		if !isFinite(value) {
			return fmt.Errorf("%s are not finite", what)
		}
	}
	return nil
}

// checkIncreasing checks that numbers are finite and do not decrease, or increase strictly.
func checkIncreasing(what string, values []float64, strictly bool) error {
	for i, value := range values {
		if !isFinite(value) || (i > 0 && (value < values[i-1] || (strictly && value == values[i-1]))) {
			return fmt.Errorf("%s are not finite or do not increase", what)
		}
	}
	return nil
}

// checkTexts checks that each text occurs once, and that none is too long.
func checkTexts(what string, texts []string) error {
	seen := make(map[string]bool, len(texts))
	for _, text := range texts {
		if seen[text] || len(text) > maxTextBytes {
			return fmt.Errorf("%s occurs twice, or has more than %d bytes", what, maxTextBytes)
		}
		seen[text] = true
	}
	return nil
}

func bit(condition bool) float64 {
	if condition {
		return 1
	}
	return 0
}

// imputeNumbers replaces missing numbers.
type imputeNumbers struct {
	fill    []float64
	missing *float64
}

// imputeTexts replaces missing texts. It is the only rule whose outputs are texts.
type imputeTexts struct{ fill []string }

func makeImpute(message *pb.Impute, isText []bool, total *budget) (rule, error) {
	numbers, texts, missing := message.GetNumbers(), message.GetTexts(), message.MissingNumber
	if (len(numbers) > 0) == (len(texts) > 0) || len(numbers)+len(texts) != len(isText) {
		return nil, errors.New("one number or one text to fill in is needed for each input")
	}
	for _, is := range isText {
		if is != (len(texts) > 0) {
			return nil, errors.New("the inputs are of another kind than what is filled in")
		}
	}
	if missing != nil && !isFinite(*missing) {
		return nil, errors.New("missing_number is not finite")
	}
	for _, number := range numbers {
		if math.IsInf(number, 0) {
			return nil, errors.New("a number to fill in is infinite")
		}
	}
	if len(texts) > 0 {
		if missing != nil {
			return nil, errors.New("no number means a missing text")
		}
		return imputeTexts{texts}, total.addTexts(len(texts))
	}
	return imputeNumbers{numbers, missing}, nil
}

func (r imputeNumbers) width() int      { return len(r.fill) }
func (r imputeNumbers) operations() int { return 2 * len(r.fill) }
func (r imputeNumbers) apply(inputs, outputs []Value) bool {
	for i, input := range inputs {
		x := input.Number
		if isMissingNumber(x, r.missing) {
			x = r.fill[i]
		}
		outputs[i] = Value{Number: x}
	}
	return false
}

func isMissingNumber(x float64, missing *float64) bool {
	if missing != nil {
		return x == *missing
	}
	return math.IsNaN(x)
}

func (r imputeTexts) width() int      { return len(r.fill) }
func (r imputeTexts) operations() int { return 2 * len(r.fill) }
func (r imputeTexts) apply(inputs, outputs []Value) bool {
	for i, input := range inputs {
		outputs[i] = Value{Text: input.Text}
		if input.IsMissing {
			outputs[i].Text = r.fill[i]
		}
	}
	return false
}

// missing tells what is missing.
type missing struct {
	count  int
	number *float64
}

func makeMissing(message *pb.Missing, count int) (rule, error) {
	if number := message.MissingNumber; number != nil && !isFinite(*number) {
		return nil, errors.New("missing_number is not finite")
	}
	return missing{count, message.MissingNumber}, nil
}

func (r missing) width() int      { return r.count }
func (r missing) operations() int { return 2 * r.count }
func (r missing) apply(inputs, outputs []Value) bool {
	for i, input := range inputs {
		outputs[i] = Value{Number: bit(input.IsMissing || isMissingNumber(input.Number, r.number))}
	}
	return false
}

// affine computes (x - subtract) / divide * multiply + add.
type affine struct {
	count                           int
	subtract, divide, multiply, add []float64
}

func makeAffine(message *pb.Affine, count int) (rule, error) {
	r := affine{count, message.GetSubtract(), message.GetDivide(), message.GetMultiply(), message.GetAdd()}
	for _, values := range [][]float64{r.subtract, r.divide, r.multiply, r.add} {
		if len(values) > 0 {
			if err := checkNumbers("numbers", values, count); err != nil {
				return nil, err
			}
		}
	}
	for _, value := range r.divide {
		if value == 0 {
			return nil, errors.New("divide is 0")
		}
	}
	return r, nil
}

func (r affine) width() int      { return r.count }
func (r affine) operations() int { return 2 * r.count }

// apply rounds each operation to a double: a conversion keeps the compiler from joining two.
func (r affine) apply(inputs, outputs []Value) bool {
	for i, input := range inputs {
		x := input.Number
		if len(r.subtract) > 0 {
			x = float64(x - r.subtract[i])
		}
		if len(r.divide) > 0 {
			x = float64(x / r.divide[i])
		}
		if len(r.multiply) > 0 {
			x = float64(x * r.multiply[i])
		}
		if len(r.add) > 0 {
			x = float64(x + r.add[i])
		}
		outputs[i] = Value{Number: x}
	}
	return false
}

// monomials are products of inputs.
type monomials struct {
	factors [][]uint32
	degree  int
}

func makeMonomials(message *pb.Monomials, count int) (rule, error) {
	factors, r := message.GetFactors(), monomials{}
	for _, factor := range factors {
		if int64(factor) >= int64(count) {
			return nil, errors.New("a factor is no input")
		}
	}
	for _, degree := range message.GetDegrees() {
		if degree > maxFactors || int(degree) > len(factors) {
			return nil, fmt.Errorf("a product has more than %d factors, or there are too few", maxFactors)
		}
		r.factors = append(r.factors, factors[:degree])
		factors = factors[degree:]
		r.degree = max(r.degree, int(degree))
	}
	if len(r.factors) == 0 || len(factors) > 0 {
		return nil, errors.New("there are no products, or too many factors")
	}
	return r, nil
}

func (r monomials) width() int      { return len(r.factors) }
func (r monomials) operations() int { return len(r.factors) * max(1, r.degree) }
func (r monomials) apply(inputs, outputs []Value) bool {
	for k, factors := range r.factors {
		product := 1.0
		for _, factor := range factors {
			product *= inputs[factor].Number
		}
		outputs[k] = Value{Number: product}
	}
	return false
}

// normalize divides all inputs by their norm.
type normalize struct {
	count int
	norm  pb.Normalize_Norm
}

func makeNormalize(message *pb.Normalize, count int) (rule, error) {
	switch message.GetNorm() {
	case pb.Normalize_NORM_L1, pb.Normalize_NORM_L2, pb.Normalize_NORM_MAX:
		return normalize{count, message.GetNorm()}, nil
	default:
		return nil, ErrUnknown
	}
}

func (r normalize) width() int      { return r.count }
func (r normalize) operations() int { return 2 * r.count }
func (r normalize) apply(inputs, outputs []Value) bool {
	norm := 0.0
	for _, input := range inputs {
		x := input.Number
		switch r.norm {
		case pb.Normalize_NORM_L1:
			norm += math.Abs(x)
		case pb.Normalize_NORM_L2:
			norm += float64(x * x)
		default:
			norm = max(norm, math.Abs(x))
		}
	}
	if r.norm == pb.Normalize_NORM_L2 {
		norm = math.Sqrt(norm)
	}
	if norm == 0 {
		norm = 1
	}
	for i, input := range inputs {
		outputs[i] = Value{Number: input.Number / norm}
	}
	return false
}

// matrix computes sums of weighted inputs.
type matrix struct {
	weights    []float64 // by output
	intercepts []float64
	inputs     int
}

func makeMatrix(message *pb.Matrix, count int) (rule, error) {
	r := matrix{message.GetWeights(), message.GetIntercepts(), count}
	if len(r.intercepts) == 0 {
		return nil, errors.New("a matrix has no outputs")
	}
	if err := checkNumbers("intercepts", r.intercepts, len(r.intercepts)); err != nil {
		return nil, err
	}
	return r, checkNumbers("weights", r.weights, len(r.intercepts)*count)
}

func (r matrix) width() int      { return len(r.intercepts) }
func (r matrix) operations() int { return len(r.weights) }
func (r matrix) apply(inputs, outputs []Value) bool {
	for k, intercept := range r.intercepts {
		sum := 0.0
		for i, weight := range r.weights[k*r.inputs : (k+1)*r.inputs] {
			sum += float64(weight * inputs[i].Number)
		}
		outputs[k] = Value{Number: intercept + sum}
	}
	return false
}
