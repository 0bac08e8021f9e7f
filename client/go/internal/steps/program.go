// Package steps computes the features of a row from its columns, by the steps that a service
// publishes. steps.proto describes them.
package steps

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"sealserve.example/sealserve/internal/messages"
	pb "sealserve.example/sealserve/internal/sealservev1"
)

// ErrUnknown means that steps have something that this version does not know.
var ErrUnknown = errors.New("the steps have something that this version does not know: update the module")

// Value is a value of a column. Of a column of numbers, NaN is missing.
type Value struct {
	Number float64
	Text   string
	// IsMissing tells whether a text is missing.
	IsMissing bool
}

// Program is checked steps. Goroutines may share it.
type Program struct {
	// IsText tells which columns are texts.
	IsText []bool

	steps    []step
	outputs  []int // values
	isText   []bool
	pool     sync.Pool
	maxInput int
}

// step is a rule with the values that it reads and the first one that it writes.
type step struct {
	inputs []int
	first  int
	rule   rule
}

// rule computes the outputs of a step. It reports whether it refuses the row, and does the same work
// whether or not it does.
type rule interface {
	// width is the number of outputs.
	width() int
	// operations is the number of elementary operations on a row, about.
	operations() int
	apply(inputs, outputs []Value) (isRefused bool)
}

// Parse checks serialized InputSteps. Its error is ErrUnknown, or says how they are malformed.
func Parse(data []byte) (*Program, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("the steps have %d bytes, more than %d", len(data), MaxBytes)
	}
	message := new(pb.InputSteps)
	if err := messages.Unmarshal(data, message, maxMessages); err != nil {
		return nil, fmt.Errorf("the steps are malformed: %w", err)
	}
	if err := checkCounts(message); err != nil {
		return nil, err
	}
	p := &Program{}
	for _, kind := range message.GetColumns() {
		if kind != pb.ValueKind_VALUE_KIND_NUMBER && kind != pb.ValueKind_VALUE_KIND_TEXT {
			return nil, ErrUnknown
		}
		p.IsText = append(p.IsText, kind == pb.ValueKind_VALUE_KIND_TEXT)
	}
	p.isText = append(p.isText, p.IsText...)
	if err := p.addSteps(message.GetSteps()); err != nil {
		return nil, err
	}
	outputs, err := p.read(message.GetOutputs())
	if err != nil {
		return nil, err
	}
	for _, value := range outputs {
		if p.isText[value] {
			return nil, errors.New("a feature is a text")
		}
	}
	p.outputs = outputs
	if len(p.IsText) == 0 || len(outputs) == 0 {
		return nil, errors.New("the steps have no columns or no features")
	}
	count := len(p.isText)
	p.pool.New = func() any { return &rowValues{values: make([]Value, count), inputs: make([]Value, p.maxInput)} }
	return p, nil
}

// rowValues are the values of one row at a time.
type rowValues struct{ values, inputs []Value }

// checkCounts checks how many of everything there are before anything is converted.
func checkCounts(message *pb.InputSteps) error {
	if len(message.GetSteps()) > maxSteps || len(message.GetColumns()) > maxValues {
		return errors.New("there are too many steps or columns")
	}
	rules, inputs := 0, 0
	for _, s := range message.GetSteps() {
		switch kind := s.GetKind().(type) {
		case nil:
			return ErrUnknown
		case *pb.Step_OneHot:
			rules += len(kind.OneHot.GetColumns())
		case *pb.Step_Lookup:
			rules += len(kind.Lookup.GetColumns())
		case *pb.Step_Bins:
			rules += len(kind.Bins.GetColumns())
		case *pb.Step_Table:
			rules += len(kind.Table.GetColumns())
		case *pb.Step_Piecewise:
			rules += len(kind.Piecewise.GetColumns())
		case *pb.Step_Trees:
			rules += len(kind.Trees.GetCategorySplits())
		}
		for _, part := range s.GetInputs() {
			inputs += int(part.GetCount())
			if inputs > maxInputs {
				return fmt.Errorf("the steps have more than %d inputs together", maxInputs)
			}
		}
	}
	if rules > maxRules {
		return fmt.Errorf("the steps have more than %d rules for columns and splits by category", maxRules)
	}
	return nil
}

func (p *Program) addSteps(parts []*pb.Step) error {
	var total budget
	for number, message := range parts {
		inputs, err := p.read(message.GetInputs())
		if err != nil {
			return fmt.Errorf("step %d: %w", number, err)
		}
		if len(inputs) == 0 {
			return fmt.Errorf("step %d has no input", number)
		}
		kinds := make([]bool, len(inputs))
		for i, value := range inputs {
			kinds[i] = p.isText[value]
		}
		made, err := makeRule(message, kinds, &total)
		if errors.Is(err, ErrUnknown) {
			return err
		}
		if err != nil {
			return fmt.Errorf("step %d: %w", number, err)
		}
		width := made.width()
		if total.operations += made.operations(); total.operations > maxOperations {
			return fmt.Errorf("a row takes more than %d operations", maxOperations)
		}
		if len(p.isText)+width > maxValues {
			return fmt.Errorf("there are more than %d values", maxValues)
		}
		p.steps = append(p.steps, step{inputs: inputs, first: len(p.isText), rule: made})
		p.maxInput = max(p.maxInput, len(inputs))
		_, writesTexts := made.(imputeTexts)
		for range width {
			p.isText = append(p.isText, writesTexts)
		}
	}
	return nil
}

// read returns the values of ranges, which have to exist.
func (p *Program) read(ranges []*pb.ValueRange) ([]int, error) {
	total := 0
	for _, part := range ranges {
		first, count := int64(part.GetFirst()), int64(part.GetCount())
		if count < 1 || first+count > int64(len(p.isText)) {
			return nil, errors.New("a range of values is empty, or of values that do not exist")
		}
		if total += int(count); total > maxInputs {
			return nil, fmt.Errorf("a list of inputs or outputs is longer than %d", maxInputs)
		}
	}
	values := make([]int, 0, total)
	for _, part := range ranges {
		for i := range int(part.GetCount()) {
			values = append(values, int(part.GetFirst())+i)
		}
	}
	return values, nil
}

// Columns is the number of columns.
func (p *Program) Columns() int { return len(p.IsText) }

// FeatureCount is the number of features.
func (p *Program) FeatureCount() int { return len(p.outputs) }

// Features computes the features of a row. Those of a row that a step refuses are NaN.
func (p *Program) Features(row []Value, to []float64) (isRefused bool) {
	w := p.pool.Get().(*rowValues)
	defer p.pool.Put(w)
	copy(w.values, row)
	for _, s := range p.steps {
		inputs := w.inputs[:len(s.inputs)]
		for i, value := range s.inputs {
			inputs[i] = w.values[value]
		}
		isRefused = s.rule.apply(inputs, w.values[s.first:s.first+s.rule.width()]) || isRefused
	}
	for i, value := range p.outputs {
		to[i] = w.values[value].Number
	}
	if isRefused {
		for i := range to {
			to[i] = math.NaN()
		}
	}
	clear(w.values) // they are the user's
	clear(w.inputs)
	return isRefused
}
