package sealserve

import (
	"math"

	"sealserve.example/sealserve/internal/item"
	"sealserve.example/sealserve/internal/model"
	"sealserve.example/sealserve/internal/steps"
)

// Table holds rows of numbers, strings and booleans.
type Table struct {
	// Columns names the columns, in any order. If it is nil, they are the model's, in order. A table
	// with names may lack columns that the model does not use.
	Columns []string
	// Rows has a value for each column: a number of any type, a bool, a string, or nil for a missing
	// one. NaN is a missing number, too.
	Rows [][]any
}

// rowSource is rows as a user hands them in.
type rowSource interface {
	len() int
	// part returns rows first..last-1.
	part(first, last int) rowSource
	// values reads the rows for the columns of a model.
	values(m *model.Model) ([][]steps.Value, error)
}

// numbers are rows of numbers.
type numbers [][]float64

func (n numbers) len() int                       { return len(n) }
func (n numbers) part(first, last int) rowSource { return n[first:last] }

func (n numbers) check(m *model.Model) error {
	for r, row := range n {
		if len(row) != len(m.Columns) {
			return inputError(FeatureCount, r, -1, "row %d has %d values, and the model %d columns", r, len(row), len(m.Columns))
		}
	}
	return nil
}

func (n numbers) values(m *model.Model) ([][]steps.Value, error) {
	if err := n.check(m); err != nil {
		return nil, err
	}
	for i := range m.Columns {
		if m.Columns[i].Kind.IsText() {
			return nil, inputError(NotTaken, 0, i, "%s holds strings: use PredictTable", columnName(m, i))
		}
	}
	found := make([][]steps.Value, len(n))
	for r, row := range n {
		found[r] = make([]steps.Value, len(row))
		for i, x := range row {
			found[r][i].Number = x
			if m.Columns[i].Kind == model.Unused {
				found[r][i].Number = math.NaN()
			}
		}
	}
	return found, nil
}

func (t Table) len() int { return len(t.Rows) }
func (t Table) part(first, last int) rowSource {
	return Table{Columns: t.Columns, Rows: t.Rows[first:last]}
}

func (t Table) values(m *model.Model) ([][]steps.Value, error) {
	places, err := t.places(m)
	if err != nil {
		return nil, err
	}
	found := make([][]steps.Value, len(t.Rows))
	for r, row := range t.Rows {
		if count := max(len(t.Columns), len(m.Columns)); t.Columns == nil && len(row) != count {
			return nil, inputError(FeatureCount, r, -1, "row %d has %d values, and the model %d columns", r, len(row), count)
		} else if t.Columns != nil && len(row) != len(t.Columns) {
			return nil, inputError(FeatureCount, r, -1, "row %d has %d values for %d columns", r, len(row), len(t.Columns))
		}
		found[r] = make([]steps.Value, len(m.Columns))
		for i := range m.Columns {
			if m.Columns[i].Kind == model.Unused || places[i] < 0 {
				found[r][i].Number = math.NaN()
				continue
			}
			value, ok := valueOf(row[places[i]], m.Columns[i].Kind.IsText())
			if !ok {
				return nil, inputError(NotTaken, r, i, "row %d, %s: a %s is needed, not a %T", r, columnName(m, i),
					m.Columns[i].Kind, row[places[i]])
			}
			found[r][i] = value
		}
	}
	return found, nil
}

// places returns for each column of the model its place in the table, or -1.
func (t Table) places(m *model.Model) ([]int, error) {
	places := make([]int, len(m.Columns))
	if t.Columns == nil {
		for i := range places {
			places[i] = i
		}
		return places, nil
	}
	if !m.HasNames {
		if len(t.Columns) != len(places) {
			return nil, inputError(FeatureCount, -1, -1, "the table has %d columns, and the model %d", len(t.Columns),
				len(places))
		}
		return Table{}.places(m)
	}
	byName := make(map[string]int, len(t.Columns))
	for i, name := range t.Columns {
		if _, isTwice := byName[name]; isTwice {
			return nil, inputError(FeatureName, -1, i, "two columns of the table are named %q", name)
		}
		byName[name] = i
	}
	used := 0
	for i := range m.Columns {
		place, ok := byName[m.Columns[i].Name]
		if !ok && m.Columns[i].Kind != model.Unused {
			return nil, inputError(FeatureName, -1, i, "the table has no %s", columnName(m, i))
		}
		if !ok {
			place = -1
		} else {
			used++
		}
		places[i] = place
	}
	if used < len(t.Columns) {
		return nil, inputError(FeatureName, -1, -1, "the table has %d columns that the model does not know",
			len(t.Columns)-used)
	}
	return places, nil
}

// valueOf reads a value; ok tells whether its type fits.
func valueOf(v any, isText bool) (value steps.Value, ok bool) {
	if isText {
		switch x := v.(type) {
		case nil:
			return steps.Value{IsMissing: true}, true
		case string:
			return steps.Value{Text: x}, true
		}
		return steps.Value{}, false
	}
	switch x := v.(type) {
	case nil:
		value.Number = math.NaN()
	case float64:
		value.Number = x
	case float32:
		value.Number = float64(x)
	case int:
		value.Number = float64(x)
	case int8:
		value.Number = float64(x)
	case int16:
		value.Number = float64(x)
	case int32:
		value.Number = float64(x)
	case int64:
		value.Number = float64(x)
	case uint:
		value.Number = float64(x)
	case uint8:
		value.Number = float64(x)
	case uint16:
		value.Number = float64(x)
	case uint32:
		value.Number = float64(x)
	case uint64:
		value.Number = float64(x)
	case bool:
		if x {
			value.Number = 1
		}
	default:
		return steps.Value{}, false
	}
	return value, true
}

// quantized are rows on the grid, with an admissible row in the place of each refused one.
type quantized struct {
	cells      [][]uint64
	isRefused  []bool
	anyRefused bool
}

// quantize computes the features of rows and rounds them. Nothing that it returns as an error
// depends on a value: which rows are refused is told after the answer to the call has come.
func quantize(rows rowSource, m *model.Model, clip bool) (quantized, error) {
	features := m.Grid.Features()
	cells := make([]uint64, rows.len()*features)
	q := quantized{cells: make([][]uint64, rows.len()), isRefused: make([]bool, rows.len())}
	plain, isPlain := rows.(numbers)
	isPlain = isPlain && !m.HasColumns
	var values [][]steps.Value
	var err error
	if isPlain {
		err = plain.check(m)
	} else {
		values, err = rows.values(m)
	}
	if err != nil {
		return quantized{}, err
	}
	row := make([]float64, features)
	for r := range q.cells {
		if isPlain {
			copy(row, plain[r])
		} else {
			m.Features(values[r], clip, row)
		}
		q.cells[r] = cells[r*features : (r+1)*features]
		q.isRefused[r] = m.Grid.Quantize(row, clip, q.cells[r])
		q.anyRefused = q.isRefused[r] || q.anyRefused
	}
	clear(row)
	return q, nil
}

// refusal says why the first refused row is refused: its index is counted from first.
func refusal(rows rowSource, codec *item.Codec, clip bool, first int) error {
	m := codec.Model
	values, err := rows.values(m)
	if err != nil {
		return err
	}
	row, cells := make([]float64, m.Grid.Features()), make([]uint64, m.Grid.Features())
	for r := range values {
		if m.HasColumns {
			for i := range m.Columns {
				if fault := m.Columns[i].Fault(values[r][i], clip); fault != 0 {
					return columnRefusal(m, fault, first+r, i)
				}
			}
		}
		isRefused := m.Features(values[r], clip, row)
		if isRefused {
			return inputError(NotTaken, first+r, -1, "row %d has a value that the model's steps do not take", first+r)
		}
		if m.Grid.Quantize(row, clip, cells) {
			return gridRefusal(m, row, clip, first+r)
		}
	}
	return inputError(BadArgument, -1, -1,
		"the rows changed while they were predicted: hand in rows that stay as they are")
}
