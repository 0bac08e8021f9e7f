package sealserve

import "sealserve.example/sealserve/internal/model"

// Column is a column of a model's rows.
type Column struct {
	// Name is empty if the model knows no names.
	Name string
	// Kind is number, integer, boolean, string, text or unused.
	Kind string
	// AllowsMissing tells whether values may be missing.
	AllowsMissing bool
}

// Model describes a model. It tells nothing of its weights.
type Model struct {
	Name, Version, ConfigID string
	Columns                 []Column
	// Classes are the labels; nil of a regression.
	Classes []Label
	// Scores is the number of scores of a row.
	Scores           int
	HasProbabilities bool
	// Verdicts has, of each offer by its parameter set, the operator's word on whether predictions are
	// those of the plaintext model: OK, UNCHECKED, WARN or REFUSE.
	Verdicts map[string]string
}

func describedModel(m *model.Model) Model {
	found := Model{
		Name: m.Name, Version: m.Version, ConfigID: m.ConfigID, Classes: labelsOf(m.Output), Scores: m.Output.Scores,
		HasProbabilities: m.Output.HasProbabilities(), Columns: make([]Column, len(m.Columns)),
		Verdicts: make(map[string]string, len(m.Offers)),
	}
	for i, column := range m.Columns {
		found.Columns[i] = Column{Name: column.Name, Kind: column.Kind.String(), AllowsMissing: column.AllowsMissing}
		found.Columns[i].AllowsMissing = column.AllowsMissing && m.HasColumns
	}
	for _, offer := range m.Offers {
		found.Verdicts[offer.Parameters.Set] = offer.Verdict
	}
	return found
}
