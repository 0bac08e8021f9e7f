package steps

import (
	"errors"
	"fmt"
	"math"
	"sort"

	pb "sealserve.example/sealserve/internal/sealservev1"
)

// notAbove returns the number of edges that are not above x, or that are below it.
func notAbove(edges []float64, x float64, below bool) int {
	return sort.Search(len(edges), func(i int) bool { return edges[i] > x || (below && edges[i] == x) })
}

// bins tell in which interval a number lies.
type bins struct {
	columns []binsColumn
	oneHot  bool
	total   int
}

type binsColumn struct {
	edges       []float64
	closedRight bool
	missing     int // -1 refuses the row
	count       int
}

func makeBins(message *pb.Bins, count int) (rule, error) {
	if len(message.GetColumns()) != count {
		return nil, errors.New("one rule for each input is needed")
	}
	r := bins{oneHot: message.GetOneHot()}
	for _, column := range message.GetColumns() {
		c := binsColumn{edges: column.GetEdges(), closedRight: column.GetClosedRight(), missing: -1}
		if err := checkIncreasing("edges", c.edges, false); err != nil {
			return nil, err
		}
		if column.MissingBin != nil {
			if int64(*column.MissingBin) > int64(len(c.edges)+1) {
				return nil, errors.New("missing_bin is not that of a bin, nor the number of bins")
			}
			c.missing = int(*column.MissingBin)
		}
		c.count = max(len(c.edges), c.missing) + 1
		r.total += c.count
		r.columns = append(r.columns, c)
	}
	if r.total > maxValues {
		return nil, errors.New("there are too many bins")
	}
	return r, nil
}

func (r bins) width() int {
	if r.oneHot {
		return r.total
	}
	return len(r.columns)
}
func (r bins) operations() int { return r.width() + len(r.columns)*(1+operationsARule) }
func (r bins) apply(inputs, outputs []Value) (isRefused bool) {
	clear(outputs)
	first := 0
	for i := range r.columns {
		column, x := &r.columns[i], inputs[i].Number
		bin := notAbove(column.edges, x, column.closedRight)
		if math.IsNaN(x) {
			bin = max(column.missing, 0)
			isRefused = isRefused || column.missing < 0
		}
		if r.oneHot {
			outputs[first+bin].Number = 1
			first += column.count
		} else {
			outputs[i].Number = float64(bin)
		}
	}
	return isRefused
}

// table interpolates linearly between points.
type table struct{ columns []tableColumn }

type tableColumn struct {
	xs, ys               []float64
	negatedXs, negatedYs []float64 // in reverse order
	tolerance            float64
}

func makeTable(message *pb.Table, count int) (rule, error) {
	if len(message.GetColumns()) != count {
		return nil, errors.New("one rule for each input is needed")
	}
	r := table{}
	for _, column := range message.GetColumns() {
		c := tableColumn{xs: column.GetXs(), ys: column.GetYs(), tolerance: column.GetTolerance()}
		if err := checkIncreasing("xs", c.xs, false); err != nil {
			return nil, err
		}
		if err := checkNumbers("ys", c.ys, len(c.xs)); err != nil {
			return nil, err
		}
		if len(c.xs) == 0 || !(c.tolerance >= 0) || math.IsInf(c.tolerance, 1) {
			return nil, errors.New("a point is needed, and a tolerance of 0 or above")
		}
		c.negatedXs, c.negatedYs = negatedReverse(c.xs), negatedReverse(c.ys)
		r.columns = append(r.columns, c)
	}
	return r, nil
}

func negatedReverse(values []float64) []float64 {
	found := make([]float64, len(values))
	for i, value := range values {
		found[len(values)-1-i] = -value
	}
	return found
}

func (r table) width() int      { return len(r.columns) }
func (r table) operations() int { return len(r.columns) * (2 + operationsARule) }
func (r table) apply(inputs, outputs []Value) bool {
	for i := range r.columns {
		outputs[i] = Value{Number: r.columns[i].interpolate(inputs[i].Number)}
	}
	return false
}

func (c *tableColumn) interpolate(x float64) float64 {
	last := len(c.xs) - 1
	isAbove, isBelow := x >= c.xs[last], x <= c.xs[0]
	if c.tolerance > 0 {
		isAbove, isBelow = x+c.tolerance > c.xs[last], x-c.tolerance < c.xs[0]
	}
	found := 0.5 * (rising(c.xs, c.ys, x) - rising(c.negatedXs, c.negatedYs, -x))
	if isAbove {
		found = c.ys[last]
	}
	if isBelow {
		found = c.ys[0]
	}
	return found
}

// rising is numpy.interp. NaN stays NaN.
func rising(xs, ys []float64, x float64) float64 {
	j := notAbove(xs, x, false) - 1
	switch {
	case math.IsNaN(x):
		return x
	case j < 0:
		return ys[0]
	case j == len(xs)-1:
		return ys[j]
	}
	slope := (ys[j+1] - ys[j]) / (xs[j+1] - xs[j])
	return float64(slope*(x-xs[j])) + ys[j]
}

// piecewise are polynomials on intervals.
type piecewise struct {
	columns []piecewiseColumn
	total   int
	powers  int
}

type piecewiseColumn struct {
	edges, origins, coefficients []float64
	degree, width                int
	period, domain               *pb.Interval
}

func makePiecewise(message *pb.Piecewise, count int) (rule, error) {
	if len(message.GetColumns()) != count {
		return nil, errors.New("one rule for each input is needed")
	}
	r := piecewise{}
	for _, column := range message.GetColumns() {
		if column.GetDegree() > maxDegree || column.GetWidth() < 1 || column.GetWidth() > maxValues {
			return nil, fmt.Errorf("polynomials have a degree of 0 to %d, and an output", maxDegree)
		}
		c := piecewiseColumn{
			edges: column.GetEdges(), origins: column.GetOrigins(), coefficients: column.GetCoefficients(),
			degree: int(column.GetDegree()), width: int(column.GetWidth()),
			period: column.GetPeriod(), domain: column.GetDomain(),
		}
		if err := c.check(); err != nil {
			return nil, err
		}
		if r.total += c.width; r.total > maxValues {
			return nil, errors.New("there are too many outputs")
		}
		r.powers += 2 * c.width * (c.degree + 1)
		r.columns = append(r.columns, c)
	}
	return r, nil
}

func (c *piecewiseColumn) check() error {
	if err := checkIncreasing("edges", c.edges, false); err != nil {
		return err
	}
	pieces := len(c.edges) + 1
	if err := checkNumbers("origins", c.origins, pieces); err != nil {
		return err
	}
	if err := checkNumbers("coefficients", c.coefficients, pieces*(c.degree+1)*c.width); err != nil {
		return err
	}
	for _, interval := range []*pb.Interval{c.period, c.domain} {
		low, high := interval.GetLow(), interval.GetHigh()
		if interval != nil && (!isFinite(low) || !isFinite(high) || low >= high) {
			return errors.New("an interval is empty or not finite")
		}
	}
	return nil
}

func (r piecewise) width() int      { return r.total }
func (r piecewise) operations() int { return r.total + r.powers + len(r.columns)*(1+operationsARule) }
func (r piecewise) apply(inputs, outputs []Value) (isRefused bool) {
	for i := range r.columns {
		column, x := &r.columns[i], inputs[i].Number
		if d := column.domain; d != nil {
			isRefused = isRefused || x < d.GetLow() || x > d.GetHigh()
		}
		column.evaluate(x, outputs[:column.width])
		outputs = outputs[column.width:]
	}
	return isRefused
}

func (c *piecewiseColumn) evaluate(x float64, to []Value) {
	if p := c.period; p != nil {
		x = p.GetLow() + remainder(x-p.GetLow(), p.GetHigh()-p.GetLow())
	}
	piece := notAbove(c.edges, x, false)
	if math.IsNaN(x) {
		piece = 0
	}
	coefficients := c.coefficients[piece*(c.degree+1)*c.width:]
	offset := x - c.origins[piece]
	for k := range to {
		value := coefficients[c.degree*c.width+k] + float64(0*offset) // NaN stays NaN
		for power := c.degree - 1; power >= 0; power-- {
			value = float64(value*offset) + coefficients[power*c.width+k]
		}
		to[k] = Value{Number: value}
	}
}

// remainder has the sign of the divisor, which is above 0.
func remainder(x, y float64) float64 {
	rest := math.Mod(x, y)
	if rest < 0 {
		rest += y
	}
	return rest
}
