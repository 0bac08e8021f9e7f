package sealserve

import (
	"fmt"

	"sealserve.example/sealserve/internal/grid"
	"sealserve.example/sealserve/internal/model"
	"sealserve.example/sealserve/internal/printable"
)

// Texts of refused rows name rows and columns, but never a value.

const columnCharacters = 64 // of a name that an error shows

func columnName(m *model.Model, i int) string {
	if m.HasNames {
		return fmt.Sprintf("column %q", printable.Text(m.Columns[i].Name, columnCharacters))
	}
	return fmt.Sprintf("column %d", i)
}

// featureName names a feature, which is a column if the model has no steps.
func featureName(m *model.Model, i int) string {
	if m.Steps != nil {
		return fmt.Sprintf("feature %d", i)
	}
	return columnName(m, i)
}

func columnRefusal(m *model.Model, fault model.ColumnFault, row, i int) error {
	name := columnName(m, i)
	switch fault {
	case model.ValueMissing:
		return inputError(NotFinite, row, i, "row %d, %s is missing: replace it", row, name)
	case model.ValueOutOfRange:
		return inputError(OutOfRange, row, i, "row %d, %s is outside the column's range %g..%g", row, name,
			m.Columns[i].Minimum, m.Columns[i].Maximum)
	default:
		return inputError(NotTaken, row, i, "row %d, %s is no integer", row, name)
	}
}

func gridRefusal(m *model.Model, features []float64, clip bool, row int) error {
	fault, i := m.Grid.Refusal(features, clip)
	switch fault {
	case grid.NotFinite:
		return inputError(NotFinite, row, i, "row %d, %s is missing or infinite: replace it", row, featureName(m, i))
	case grid.OutOfRange:
		return inputError(OutOfRange, row, i, "row %d, %s is outside the model's range %g..%g: scores have no guarantee "+
			"there; scale the features, or use WithClip for the prediction at the nearest end of the range", row,
			featureName(m, i), m.Grid.Minimum[i], m.Grid.Maximum[i])
	case grid.BrokenGroup:
		return inputError(OutOfRange, row, -1, "row %d breaks group %d: of the features of a group, set as many to their "+
			"maximum as the model expects", row, i+1)
	default:
		return inputError(OffGrid, row, i, "row %d, %s is not on the model's grid: round it", row, featureName(m, i))
	}
}
