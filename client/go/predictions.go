package sealserve

import (
	"fmt"

	"sealserve.example/sealserve/internal/output"
)

// Predictions are the decrypted scores of some rows, with the meaning that the model gives them.
type Predictions struct {
	// Scores has a row of scores for each row.
	Scores [][]float64

	output *output.Output
}

// Label is a label of a class: an int64, a string, a bool or a float64.
type Label any

// Len is the number of rows.
func (p *Predictions) Len() int { return len(p.Scores) }

// Classes returns the labels, in the order of the probabilities; nil of a regression.
func (p *Predictions) Classes() []Label { return labelsOf(p.output) }

func labelsOf(o *output.Output) []Label {
	if o.Labels == nil {
		return nil
	}
	found := make([]Label, len(o.Labels))
	for i, label := range o.Labels {
		found[i] = label
	}
	return found
}

// Labels returns the label of each row, of a classification.
func (p *Predictions) Labels() ([]Label, error) {
	if p.output.Task != output.Classification {
		return nil, &NoSuchMethodError{"labels of rows: use Targets of a regression, Indicators of several labels"}
	}
	found := make([]Label, len(p.Scores))
	for r, scores := range p.Scores {
		found[r] = p.output.Labels[p.output.Class(scores)]
	}
	return found, nil
}

// Labels returns the label of each row, of a classification whose labels are of type T.
func Labels[T int64 | string | bool | float64](p *Predictions) ([]T, error) {
	labels, err := p.Labels()
	if err != nil {
		return nil, err
	}
	found := make([]T, len(labels))
	for r, label := range labels {
		typed, ok := label.(T)
		if !ok {
			return nil, inputError(BadArgument, -1, -1, "the labels of this model are %T, not %T", label, typed)
		}
		found[r] = typed
	}
	return found, nil
}

// Targets returns the targets of each row, of a regression: one number, or several.
func (p *Predictions) Targets() ([][]float64, error) {
	if p.output.Task != output.Regression {
		return nil, &NoSuchMethodError{"targets: it is no regression"}
	}
	found := make([][]float64, len(p.Scores))
	for r, scores := range p.Scores {
		found[r] = p.output.Targets(scores)
	}
	return found, nil
}

// Indicators tells of each row which labels it has, of a model with several labels a row.
func (p *Predictions) Indicators() ([][]bool, error) {
	if p.output.Task != output.Multilabel {
		return nil, &NoSuchMethodError{"indicators: it has one label a row, or none"}
	}
	found := make([][]bool, len(p.Scores))
	for r, scores := range p.Scores {
		found[r] = make([]bool, len(scores))
		for k, score := range scores {
			found[r][k] = score > 0
		}
	}
	return found, nil
}

// Probabilities returns the probabilities of each row, in the order of Classes.
func (p *Predictions) Probabilities() ([][]float64, error) {
	if !p.output.HasProbabilities() {
		return nil, &NoSuchMethodError{"probabilities"}
	}
	found := make([][]float64, len(p.Scores))
	for r, scores := range p.Scores {
		found[r] = p.output.Probabilities(scores)
	}
	return found, nil
}

// DecisionFunction returns what scikit-learn's decision_function returns of each row. Of a binary
// classifier that is one number.
func (p *Predictions) DecisionFunction() ([][]float64, error) {
	if !p.output.HasDecisionFunction() {
		return nil, &NoSuchMethodError{"decision function"}
	}
	found := make([][]float64, len(p.Scores))
	for r, scores := range p.Scores {
		found[r] = p.output.DecisionFunction(scores)
	}
	return found, nil
}

// String does not show scores.
func (p *Predictions) String() string { return fmt.Sprintf("predictions of %d rows", len(p.Scores)) }
