// Package grid rounds features to the integers that are encrypted, as Input in model.proto describes
// it.
package grid

import (
	"errors"
	"fmt"
	"math"
)

const (
	maxLevels    = 1 << 32 // more than any parameter set has room for
	offGrid      = 1e-3    // of a step
	float32Loss  = 0x1p-22 // relative: four times what a number loses as a float32
	leastFloat32 = 0x1p-149
)

// Grid holds, for each feature, its declared range and the step between neighbours.
type Grid struct {
	Minimum, Maximum, Step []float64
	// Keeps tells which features have all values on the grid; nil if none has.
	Keeps []bool
	// Group has the number of each feature's group from 1, or 0; nil if there is no group.
	Group []uint32
	// ExactlyOne tells of each group whether exactly one of its features is at its maximum.
	ExactlyOne []bool

	levels          []float64
	least, greatest []float64
	keptStep        []float64
	dummy           []uint64
}

// New checks and makes a grid of so many features. Lists have one value, or one for each feature.
func New(
	features int, minimum, maximum, step []float64, keeps []bool, group []uint32, exactlyOne []bool,
) (*Grid, error) {
	g := &Grid{
		Minimum: spread(minimum, features), Maximum: spread(maximum, features), Step: spread(step, features),
		ExactlyOne: exactlyOne,
	}
	if g.Minimum == nil || g.Maximum == nil || g.Step == nil {
		return nil, errors.New("minimum, maximum and step need one value each, or one for each feature")
	}
	if len(keeps) > 0 {
		if g.Keeps = spread(keeps, features); g.Keeps == nil {
			return nil, errors.New("keeps needs one value, or one for each feature")
		}
	}
	if len(group) > 0 {
		g.Group = group
	}
	for i, low := range g.Minimum {
		if err := checkRange(low, g.Maximum[i], g.Step[i]); err != nil {
			return nil, err
		}
	}
	g.prepare()
	if err := g.checkGroups(); err != nil {
		return nil, err
	}
	g.prepareGroups()
	return g, nil
}

func spread[T any](values []T, count int) []T {
	if len(values) == count {
		return values
	}
	if len(values) != 1 {
		return nil
	}
	all := make([]T, count)
	for i := range all {
		all[i] = values[0]
	}
	return all
}

func isFinite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func checkRange(low, high, step float64) error {
	switch {
	case !isFinite(low) || !isFinite(high) || !isFinite(high-low):
		return errors.New("the input range must be finite, and so must its width")
	case high < low:
		return errors.New("the input range is empty, a maximum is below its minimum")
	case !isFinite(step) || step <= 0:
		return errors.New("the input step must be above 0 and finite")
	case (high-low)/step > maxLevels:
		return errors.New("the input step is finer than a 2^32nd of the range")
	}
	return nil
}

func (g *Grid) prepare() {
	count := len(g.Minimum)
	values := make([]float64, 4*count)
	g.levels, g.least = values[:count], values[count:2*count]
	g.greatest, g.keptStep = values[2*count:3*count], values[3*count:]
	for i, low := range g.Minimum {
		high, step := g.Maximum[i], g.Step[i]
		levels := math.RoundToEven((high - low) / step)
		below := float64(float32Loss*math.Abs(low)) + leastFloat32
		above := float64(float32Loss*math.Abs(high)) + leastFloat32
		last := high
		if levels > 0 {
			below = max(below, step/2)
			last = low + float64((levels+0.5)*step)
		}
		g.levels[i], g.least[i], g.greatest[i], g.keptStep[i] = levels, low-below, max(last, high+above), step
	}
}

func (g *Grid) checkGroups() error {
	if g.Group == nil {
		if len(g.ExactlyOne) > 0 {
			return errors.New("each group needs a feature")
		}
		return nil
	}
	if len(g.Group) != len(g.Minimum) || len(g.ExactlyOne) > len(g.Group) {
		return fmt.Errorf("groups need one number for each of %d features", len(g.Minimum))
	}
	has := make([]bool, len(g.ExactlyOne))
	for i, group := range g.Group {
		if group == 0 {
			continue
		}
		if int64(group) > int64(len(has)) {
			return errors.New("a number of a group is above their count")
		}
		has[group-1] = true
		if g.Keeps == nil || !g.Keeps[i] || g.levels[i] < 1 {
			return errors.New("a feature of a group must keep its grid, and have two values at least")
		}
	}
	for _, one := range has {
		if !one {
			return errors.New("each group needs a feature")
		}
	}
	return nil
}

func (g *Grid) prepareGroups() {
	g.dummy = make([]uint64, len(g.Minimum))
	set := make([]bool, len(g.ExactlyOne))
	for i, group := range g.Group {
		if group == 0 {
			continue
		}
		g.keptStep[i] = g.Step[i] * g.levels[i]
		if g.ExactlyOne[group-1] && !set[group-1] {
			g.dummy[i], set[group-1] = uint64(g.levels[i]), true
		}
	}
}

// Features is the number of features.
func (g *Grid) Features() int { return len(g.Minimum) }

// Levels returns the greatest integer of a feature.
func (g *Grid) Levels(feature int) uint64 { return uint64(g.levels[feature]) }

// MaxLevels is the greatest integer of all features.
func (g *Grid) MaxLevels() uint64 {
	most := 0.0
	for _, levels := range g.levels {
		most = max(most, levels)
	}
	return uint64(most)
}

// Quantize rounds a row of features into integers, or writes an admissible row in the place of one
// that it refuses. It reports whether it refuses the row.
//
// The same operations run whatever the values are, so that neither what is sent nor when it is sent
// tells a refused row. Refusal says afterwards why.
func (g *Grid) Quantize(row []float64, clip bool, to []uint64) (isRefused bool) {
	fault := uint64(0)
	for i, x := range row {
		cell, isBad := g.cell(i, x, clip)
		fault |= bit(isBad) | bit(g.isOff(i, x, clip))
		to[i] = cell
	}
	if len(g.ExactlyOne) > 0 {
		fault |= bit(g.firstBrokenGroup(row, clip) >= 0)
	}
	mask := -fault
	for i, dummy := range g.dummy {
		to[i] ^= (to[i] ^ dummy) & mask
	}
	return fault != 0
}

// cell rounds one feature, and tells whether it is not finite or outside its range.
func (g *Grid) cell(i int, x float64, clip bool) (cell uint64, isBad bool) {
	bounded := g.bounded(i, x, clip)
	isBad = bounded != x
	if clip {
		isBad = !isFinite(x)
	}
	level := math.RoundToEven((bounded - g.Minimum[i]) / g.Step[i])
	return uint64(min(max(level, 0), g.levels[i])), isBad
}

// bounded moves a feature into its range; of NaN it makes the least value.
func (g *Grid) bounded(i int, x float64, clip bool) float64 {
	low, high := g.least[i], g.greatest[i]
	if clip {
		low, high = g.Minimum[i], g.Maximum[i]
	}
	if !(x >= low) {
		x = low
	}
	if x > high {
		x = high
	}
	return x
}

// firstBrokenGroup returns the number of a group that a row breaks, from 0, or -1.
func (g *Grid) firstBrokenGroup(row []float64, clip bool) int {
	counts := make([]int, len(g.ExactlyOne))
	for i, group := range g.Group {
		if group > 0 {
			counts[group-1] += int(bit(g.bounded(i, row[i], clip)-g.Minimum[i] > g.keptStep[i]/2))
		}
	}
	broken := -1
	for group, count := range counts {
		if count > 1 || (count < 1 && g.ExactlyOne[group]) {
			broken = group
		}
	}
	return broken
}

func bit(condition bool) uint64 {
	if condition {
		return 1
	}
	return 0
}

// Fault is why a row is refused.
type Fault int

// The faults, the most telling first.
const (
	NotFinite Fault = iota + 1
	OutOfRange
	OffGrid
	BrokenGroup
)

// Refusal returns why a row is refused, and the number of the feature, or of the group from 0. The
// row has to be one that Quantize refuses.
func (g *Grid) Refusal(row []float64, clip bool) (fault Fault, number int) {
	for i, x := range row {
		if !isFinite(x) {
			return NotFinite, i
		}
	}
	for i, x := range row {
		if _, isBad := g.cell(i, x, clip); isBad {
			return OutOfRange, i
		}
	}
	if group := g.firstBrokenGroup(row, clip); len(g.ExactlyOne) > 0 && group >= 0 && !g.hasOffGrid(row, clip) {
		return BrokenGroup, group
	}
	for i, x := range row {
		if g.isOff(i, x, clip) {
			return OffGrid, i
		}
	}
	return 0, -1
}

func (g *Grid) hasOffGrid(row []float64, clip bool) bool {
	for i, x := range row {
		if g.isOff(i, x, clip) {
			return true
		}
	}
	return false
}

func (g *Grid) isOff(i int, x float64, clip bool) bool {
	if g.Keeps == nil || !g.Keeps[i] {
		return false
	}
	bounded, low, distance := g.bounded(i, x, clip), g.Minimum[i], g.keptStep[i]
	nearest := low + float64(math.RoundToEven((bounded-low)/distance)*distance)
	return math.Abs(bounded-nearest) > max(offGrid*g.Step[i], float32Loss*math.Abs(bounded))
}
