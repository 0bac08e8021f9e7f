package model

import (
	"errors"
	"math"

	pb "sealserve.example/sealserve/internal/sealservev1"
	"sealserve.example/sealserve/internal/steps"
)

// ColumnKind is what the values of a column are.
type ColumnKind int

// The kinds of columns.
const (
	Number ColumnKind = iota + 1
	Integer
	Boolean
	String
	Text
	// Unused columns may have anything: no step reads them.
	Unused
)

// IsText tells whether values are strings. All others are numbers, and a boolean is 0 or 1.
func (k ColumnKind) IsText() bool { return k == String || k == Text }

func (k ColumnKind) String() string {
	return [...]string{"", "number", "integer", "boolean", "string", "text", "unused"}[k]
}

var columnKinds = map[pb.Column_Kind]ColumnKind{
	pb.Column_KIND_NUMBER: Number, pb.Column_KIND_INTEGER: Integer, pb.Column_KIND_BOOLEAN: Boolean,
	pb.Column_KIND_STRING: String, pb.Column_KIND_TEXT: Text, pb.Column_KIND_UNUSED: Unused,
}

// Column is a column of rows.
type Column struct {
	Name          string
	Kind          ColumnKind
	AllowsMissing bool
	// Minimum and Maximum are the least and the greatest number that it takes.
	Minimum, Maximum float64
}

func (m *Model) readColumns(input *pb.Input) error {
	m.HasColumns = len(input.GetColumns()) > 0
	if !m.HasColumns {
		m.Columns = make([]Column, input.GetFeatureCount())
		m.HasNames = len(input.GetFeatureNames()) > 0
		for i := range m.Columns {
			m.Columns[i] = Column{Kind: Number, Minimum: math.Inf(-1), Maximum: math.Inf(1)}
			if m.HasNames {
				m.Columns[i].Name = input.GetFeatureNames()[i]
			}
		}
		return nil
	}
	m.Columns = make([]Column, len(input.GetColumns()))
	for i, message := range input.GetColumns() {
		kind := columnKinds[message.GetKind()]
		if kind == 0 {
			return errors.New("a column is of a kind that is unknown to this version: update the module")
		}
		c := Column{
			Name: message.GetName(), Kind: kind, AllowsMissing: message.GetAllowsMissing(),
			Minimum: math.Inf(-1), Maximum: math.Inf(1),
		}
		if kind == Boolean {
			c.Minimum, c.Maximum = 0, 1
		}
		if message.Minimum != nil {
			c.Minimum = *message.Minimum
		}
		if message.Maximum != nil {
			c.Maximum = *message.Maximum
		}
		hasRange := message.Minimum != nil || message.Maximum != nil
		if (hasRange && (kind.IsText() || kind == Unused)) || !(c.Minimum <= c.Maximum) {
			return errors.New("the range of a column is empty, is no range, or is of a column of strings")
		}
		m.HasNames = m.HasNames || c.Name != ""
		m.Columns[i] = c
	}
	return nil
}

// ColumnFault is why a column does not take a value.
type ColumnFault int

// The faults of values.
const (
	ValueMissing ColumnFault = iota + 1
	ValueOutOfRange
	ValueNoInteger
)

// Fault returns why a column does not take a value, or 0.
func (c *Column) Fault(value steps.Value, clip bool) ColumnFault {
	switch {
	case c.Kind == Unused:
		return 0
	case c.Kind.IsText():
		if value.IsMissing && !c.AllowsMissing {
			return ValueMissing
		}
		return 0
	}
	x := value.Number
	switch {
	case math.IsNaN(x) && !c.AllowsMissing:
		return ValueMissing
	case math.IsNaN(x):
		return 0
	case !clip && (x < c.Minimum || x > c.Maximum):
		return ValueOutOfRange
	case (c.Kind == Integer || c.Kind == Boolean) && x != math.RoundToEven(x):
		return ValueNoInteger
	}
	return 0
}

// Features computes the features of a row, and reports whether a column or a step refuses it: they
// are NaN then.
func (m *Model) Features(row []steps.Value, clip bool, to []float64) (isRefused bool) {
	if m.HasColumns {
		for i := range m.Columns {
			column := &m.Columns[i]
			isRefused = column.Fault(row[i], clip) != 0 || isRefused
			if clip && !column.Kind.IsText() && column.Kind != Unused && !math.IsNaN(row[i].Number) {
				row[i].Number = min(max(row[i].Number, column.Minimum), column.Maximum)
			}
		}
	}
	if m.Steps == nil {
		for i := range row {
			to[i] = row[i].Number
		}
	} else {
		isRefused = m.Steps.Features(row, to) || isRefused
	}
	if isRefused {
		for i := range to {
			to[i] = math.NaN()
		}
	}
	return isRefused
}
