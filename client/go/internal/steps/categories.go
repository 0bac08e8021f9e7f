package steps

import (
	"errors"
	"sort"

	pb "sealserve.example/sealserve/internal/sealservev1"
)

// categories give a value its code.
type categories struct {
	numbers                        []float64
	texts                          map[string]int
	count                          int
	refusesMissing, refusesUnknown bool
}

func makeCategories(message *pb.Categories, isText bool, total *budget) (*categories, error) {
	numbers, texts := message.GetNumbers(), message.GetTexts()
	if (message.GetIsText() || len(texts) > 0) != isText {
		return nil, errors.New("an input is of another kind than its categories")
	}
	if isText && len(numbers) > 0 {
		return nil, errors.New("categories are either numbers or texts")
	}
	if err := checkIncreasing("categories", numbers, true); err != nil {
		return nil, err
	}
	if err := checkTexts("a category", texts); err != nil {
		return nil, err
	}
	c := &categories{
		numbers: numbers, count: len(numbers) + len(texts),
		refusesMissing: message.GetRefusesMissing(), refusesUnknown: message.GetRefusesUnknown(),
	}
	if isText {
		c.texts = make(map[string]int, len(texts))
		for code, text := range texts {
			c.texts[text] = code
		}
	}
	return c, total.addTexts(c.count + 2)
}

// code returns the code of a value, and whether the row is refused.
func (c *categories) code(value Value) (code int, isRefused bool) {
	missing, unknown := c.count, c.count+1
	code = unknown
	switch {
	case c.texts != nil && value.IsMissing:
		code = missing
	case c.texts != nil:
		if found, ok := c.texts[value.Text]; ok {
			code = found
		}
	case value.Number != value.Number:
		code = missing
	default:
		at := sort.SearchFloat64s(c.numbers, value.Number)
		if at < len(c.numbers) && c.numbers[at] == value.Number {
			code = at
		}
	}
	return code, (c.refusesMissing && code == missing) || (c.refusesUnknown && code == unknown)
}

// oneHot sets one output of each input at most.
type oneHot struct {
	columns []oneHotColumn
	total   int
}

type oneHotColumn struct {
	categories *categories
	places     []uint32
	width      int
}

func makeOneHot(message *pb.OneHot, isText []bool, total *budget) (rule, error) {
	if len(message.GetColumns()) != len(isText) {
		return nil, errors.New("one rule for each input is needed")
	}
	r := oneHot{}
	for i, column := range message.GetColumns() {
		c, err := makeCategories(column.GetCategories(), isText[i], total)
		if err != nil {
			return nil, err
		}
		width, places := column.GetWidth(), column.GetPlaces()
		if width < 1 || width > maxValues || len(places) != c.count+2 {
			return nil, errors.New("a place is needed for each category, for missing and for unknown values")
		}
		for _, place := range places {
			if place > width {
				return nil, errors.New("a place is beyond the outputs")
			}
		}
		if r.total += int(width); r.total > maxValues {
			return nil, errors.New("there are too many outputs")
		}
		r.columns = append(r.columns, oneHotColumn{c, places, int(width)})
	}
	return r, nil
}

func (r oneHot) width() int { return r.total }
func (r oneHot) operations() int {
	return r.total + len(r.columns)*(1+operationsARule)
}

func (r oneHot) apply(inputs, outputs []Value) (isRefused bool) {
	clear(outputs)
	first := 0
	for i := range r.columns {
		column := &r.columns[i]
		code, refused := column.categories.code(inputs[i])
		isRefused = isRefused || refused
		if place := column.places[code]; place > 0 {
			outputs[first+int(place)-1].Number = 1
		}
		first += column.width
	}
	return isRefused
}

// lookup replaces categories by numbers.
type lookup struct {
	categories []*categories
	values     [][]float64
}

func makeLookup(message *pb.Lookup, isText []bool, total *budget) (rule, error) {
	if len(message.GetColumns()) != len(isText) {
		return nil, errors.New("one rule for each input is needed")
	}
	r := lookup{}
	for i, column := range message.GetColumns() {
		c, err := makeCategories(column.GetCategories(), isText[i], total)
		if err != nil {
			return nil, err
		}
		values := column.GetValues()
		if len(values) != c.count+2 {
			return nil, errors.New("a number is needed for each category, for missing and for unknown values")
		}
		for _, value := range values {
			if value == value && !isFinite(value) {
				return nil, errors.New("a number of a category is infinite")
			}
		}
		r.categories, r.values = append(r.categories, c), append(r.values, values)
	}
	return r, nil
}

func (r lookup) width() int      { return len(r.values) }
func (r lookup) operations() int { return len(r.values) * (2 + operationsARule) }
func (r lookup) apply(inputs, outputs []Value) (isRefused bool) {
	for i, values := range r.values {
		code, refused := r.categories[i].code(inputs[i])
		isRefused = isRefused || refused
		outputs[i] = Value{Number: values[code]}
	}
	return isRefused
}
