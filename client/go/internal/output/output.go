// Package output turns scores into predictions, as Output in model.proto describes them.
package output

import (
	"errors"
	"fmt"
	"math"
	"sort"

	pb "sealserve.example/sealserve/internal/sealservev1"
)

const (
	maxMembers     = 1 << 10
	maxCurvePoints = 1 << 18
)

// Task is the kind of prediction.
type Task int

// The tasks.
const (
	Regression Task = iota + 1
	Classification
	Multilabel
)

// Output is what scores mean.
type Output struct {
	Task   Task
	Scores int
	// Labels are those of classes: int64, string, bool or float64, all of one type.
	Labels []any
	// ScalarTarget tells whether a target of a regression is one number.
	ScalarTarget bool

	link                  pb.Output_Link
	keepsZeroRows         bool
	hasNoDecisionFunction bool
	members               int
	curves                []*pb.Curve
	pairwise              pb.Output_Pairwise
}

// FromProto checks and converts an output, whose counts are within bounds.
func FromProto(message *pb.Output) (*Output, error) {
	o := &Output{
		Scores:                int(message.GetScoreCount()),
		ScalarTarget:          message.GetScalarTarget(),
		link:                  message.GetLink(),
		keepsZeroRows:         message.GetKeepsZeroRows(),
		hasNoDecisionFunction: message.GetHasNoDecisionFunction(),
		members:               max(1, int(message.GetMemberCount())),
		curves:                message.GetCurves(),
		pairwise:              message.GetPairwise(),
	}
	tasks := map[pb.Output_Task]Task{
		pb.Output_TASK_REGRESSION:     Regression,
		pb.Output_TASK_CLASSIFICATION: Classification,
		pb.Output_TASK_MULTILABEL:     Multilabel,
	}
	o.Task = tasks[message.GetTask()]
	if o.Task == 0 || o.link == 0 || pb.Output_Link_name[int32(o.link)] == "" ||
		pb.Output_Pairwise_name[int32(o.pairwise)] == "" {
		return nil, errors.New("its task or link function is unknown to this version: update the module")
	}
	if err := o.readLabels(message.GetClasses()); err != nil {
		return nil, err
	}
	return o, o.check()
}

func (o *Output) readLabels(classes *pb.Classes) error {
	switch labels := classes.GetLabels().(type) {
	case *pb.Classes_Integers:
		o.Labels = anyOf(labels.Integers.GetValues())
	case *pb.Classes_Strings:
		o.Labels = anyOf(labels.Strings.GetValues())
	case *pb.Classes_Booleans:
		o.Labels = anyOf(labels.Booleans.GetValues())
	case *pb.Classes_Doubles:
		for _, label := range labels.Doubles.GetValues() {
			if math.IsNaN(label) || math.IsInf(label, 0) {
				return errors.New("a label is infinite or no number")
			}
		}
		o.Labels = anyOf(labels.Doubles.GetValues())
	}
	seen := make(map[any]bool, len(o.Labels))
	for _, label := range o.Labels {
		if seen[label] {
			return errors.New("two classes have one label")
		}
		seen[label] = true
	}
	return nil
}

func anyOf[T any](values []T) []any {
	found := make([]any, len(values))
	for i, value := range values {
		found[i] = value
	}
	return found
}

func (o *Output) check() error {
	if o.Scores < 1 {
		return errors.New("a model has at least one score")
	}
	if o.ScalarTarget && (o.Task != Regression || o.Scores != 1) {
		return errors.New("only a regression with one score has a scalar target")
	}
	if o.members > min(maxMembers, o.Scores) || o.Scores%o.members != 0 {
		return fmt.Errorf("%d scores cannot be those of %d classifiers", o.Scores, o.members)
	}
	if o.members > 1 && o.Task != Classification {
		return errors.New("only the probabilities of classifiers are averaged")
	}
	if err := o.checkCurves(); err != nil {
		return err
	}
	if o.pairwise != 0 && !(o.Task == Classification && o.members == 1 && classesOfPairs(o.Scores) > 2) {
		return fmt.Errorf("%d scores are not those of all pairs of three classes or more", o.Scores)
	}
	if !o.fitsLink() {
		return errors.New("its link does not fit its task")
	}
	if len(o.Labels) != o.classCount() {
		return fmt.Errorf("%d classes, but the scores decide between %d", len(o.Labels), o.classCount())
	}
	return nil
}

func (o *Output) checkCurves() error {
	expected := 0
	if o.link == pb.Output_LINK_CURVES {
		expected = o.Scores
	}
	if len(o.curves) != expected {
		return fmt.Errorf("%d curves, but %d are needed", len(o.curves), expected)
	}
	points := 0
	for _, curve := range o.curves {
		xs, ys := curve.GetScores(), curve.GetProbabilities()
		points += len(xs)
		if len(xs) < 1 || len(xs) != len(ys) || points > maxCurvePoints {
			return errors.New("a curve has no points, or there are too many")
		}
		for i, x := range xs {
			if math.IsNaN(x) || math.IsInf(x, 0) || (i > 0 && !(x > xs[i-1])) {
				return errors.New("the scores of a curve must be finite and increase")
			}
			if !(ys[i] >= 0 && ys[i] <= 1) {
				return errors.New("the probabilities of a curve must be 0 to 1")
			}
		}
	}
	return nil
}

func (o *Output) fitsLink() bool {
	switch o.link {
	case pb.Output_LINK_NONE:
		return o.members == 1
	case pb.Output_LINK_LOG, pb.Output_LINK_LOG1P:
		return o.Task == Regression
	case pb.Output_LINK_LOGISTIC:
		return o.Task == Multilabel || (o.isPlainClassification() && o.width() == 1)
	case pb.Output_LINK_OVR_LOGISTIC:
		return o.isPlainClassification() && o.width() > 1
	case pb.Output_LINK_MODIFIED_HUBER:
		return o.Task == Multilabel || o.isPlainClassification()
	default: // softmax and curves
		return o.isPlainClassification()
	}
}

func (o *Output) isPlainClassification() bool { return o.Task == Classification && o.pairwise == 0 }

// width is the number of scores of one classifier.
func (o *Output) width() int { return o.Scores / o.members }

func (o *Output) classCount() int {
	switch {
	case o.Task == Regression:
		return 0
	case o.pairwise != 0:
		return classesOfPairs(o.Scores)
	case o.Task == Classification && o.width() == 1:
		return 2
	default:
		return o.width()
	}
}

// classesOfPairs returns of how many classes these are all pairs; 0 if of none.
func classesOfPairs(pairs int) int {
	count := (1 + int(math.Sqrt(float64(1+8*pairs)))) / 2
	if count*(count-1)/2 != pairs {
		return 0
	}
	return count
}

// HasProbabilities tells whether there are probabilities.
func (o *Output) HasProbabilities() bool {
	return o.Task != Regression && o.link != pb.Output_LINK_NONE
}

// HasDecisionFunction tells whether the scores give a decision function of the model's estimator.
func (o *Output) HasDecisionFunction() bool {
	return o.Task != Regression && !o.hasNoDecisionFunction && !o.decidesByProbabilities()
}

func (o *Output) decidesByProbabilities() bool {
	return o.members > 1 || o.link == pb.Output_LINK_CURVES
}

// Class returns the index of the label of a row of scores of a classification.
func (o *Output) Class(scores []float64) int {
	switch {
	case o.pairwise == pb.Output_PAIRWISE_CONFIDENCES:
		_, scores = o.pairs(scores)
	case o.pairwise != 0:
		scores, _ = o.pairs(scores)
	case o.decidesByProbabilities():
		scores = o.Probabilities(scores)
	case len(scores) == 1:
		if scores[0] > 0 {
			return 1
		}
		return 0
	}
	greatest := 0
	for k, score := range scores {
		if score > scores[greatest] {
			greatest = k
		}
	}
	return greatest
}

// Targets returns the prediction of a regression.
func (o *Output) Targets(scores []float64) []float64 {
	targets := make([]float64, len(scores))
	for k, score := range scores {
		switch o.link {
		case pb.Output_LINK_LOG:
			targets[k] = math.Exp(score)
		case pb.Output_LINK_LOG1P:
			targets[k] = math.Expm1(score)
		default:
			targets[k] = score
		}
	}
	return targets
}

// DecisionFunction returns the decision function: the scores, or the confidences of classes.
func (o *Output) DecisionFunction(scores []float64) []float64 {
	if o.pairwise == pb.Output_PAIRWISE_VOTES || o.pairwise == pb.Output_PAIRWISE_CONFIDENCES {
		_, confidences := o.pairs(scores)
		return confidences
	}
	return scores
}

// pairs returns the votes and the confidence of each class. Source: scikit-learn's
// _ovr_decision_function.
func (o *Output) pairs(scores []float64) (votes, confidences []float64) {
	count := classesOfPairs(len(scores))
	votes, confidences = make([]float64, count), make([]float64, count)
	pair := 0
	for first := range count {
		for second := first + 1; second < count; second++ {
			score := scores[pair]
			if score > 0 {
				votes[first]++
			} else {
				votes[second]++
			}
			confidences[first] += score
			confidences[second] -= score
			pair++
		}
	}
	for k, sum := range confidences {
		confidences[k] = votes[k] + sum/(3*(math.Abs(sum)+1))
	}
	return votes, confidences
}

// Probabilities returns the probabilities of a row of scores, in the order of the labels.
func (o *Output) Probabilities(scores []float64) []float64 {
	total := make([]float64, o.classCount())
	width := o.width()
	for first := 0; first < len(scores); first += width {
		var curves []*pb.Curve
		if o.curves != nil {
			curves = o.curves[first : first+width]
		}
		for k, share := range o.ofMember(scores[first:first+width], curves) {
			total[k] += share
		}
	}
	for k := range total {
		total[k] /= float64(o.members)
	}
	return total
}

// ofMember returns the probabilities of one classifier.
func (o *Output) ofMember(scores []float64, curves []*pb.Curve) []float64 {
	found := make([]float64, len(scores))
	if o.link == pb.Output_LINK_SOFTMAX && len(scores) > 1 {
		greatest := math.Inf(-1)
		for _, score := range scores {
			greatest = max(greatest, score)
		}
		for k, score := range scores {
			found[k] = math.Exp(score - greatest)
		}
	} else {
		for k, score := range scores {
			found[k] = o.value(score, curves, k)
		}
	}
	if o.Task == Multilabel {
		return found
	}
	if len(found) == 1 {
		return []float64{1 - found[0], found[0]}
	}
	sum := 0.0
	for _, value := range found {
		sum += value
	}
	for k := range found {
		switch {
		case sum != 0:
			found[k] /= sum
		case !o.keepsZeroRows:
			found[k] = 1 / float64(len(found))
		}
	}
	return found
}

func (o *Output) value(score float64, curves []*pb.Curve, k int) float64 {
	switch o.link {
	case pb.Output_LINK_MODIFIED_HUBER:
		return (min(max(score, -1), 1) + 1) / 2
	case pb.Output_LINK_CURVES:
		return onCurve(curves[k], score)
	case pb.Output_LINK_SOFTMAX:
		score *= 2 // of two classes with the scores -score and score
	}
	if score < 0 { // exp(-score) might be infinite
		return math.Exp(score) / (1 + math.Exp(score))
	}
	return 1 / (1 + math.Exp(-score))
}

func onCurve(curve *pb.Curve, score float64) float64 {
	xs, ys := curve.GetScores(), curve.GetProbabilities()
	right := sort.Search(len(xs), func(i int) bool { return xs[i] > score }) // of the score
	switch right {
	case 0:
		return ys[0]
	case len(xs):
		return ys[len(xs)-1]
	}
	slope := (ys[right] - ys[right-1]) / (xs[right] - xs[right-1])
	return ys[right-1] + float64(slope*(score-xs[right-1]))
}
