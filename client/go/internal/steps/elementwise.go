package steps

import (
	"errors"
	"math"

	pb "sealserve.example/sealserve/internal/sealservev1"
)

const epsilon = 0x1p-52

// function computes a function of x, with the parameters a and b if it has some. NaN stays NaN.
type function struct {
	parameters int
	compute    func(x, a, b float64) float64
}

func plain(compute func(x float64) float64) function {
	return function{0, func(x, _, _ float64) float64 { return compute(x) }}
}

var functions = map[pb.Elementwise_Function]function{
	pb.Elementwise_FUNCTION_ABS:             plain(math.Abs),
	pb.Elementwise_FUNCTION_SQUARE:          plain(func(x float64) float64 { return x * x }),
	pb.Elementwise_FUNCTION_SQRT:            plain(math.Sqrt),
	pb.Elementwise_FUNCTION_EXP:             plain(math.Exp),
	pb.Elementwise_FUNCTION_EXPM1:           plain(math.Expm1),
	pb.Elementwise_FUNCTION_LOG:             plain(math.Log),
	pb.Elementwise_FUNCTION_LOG1P:           plain(math.Log1p),
	pb.Elementwise_FUNCTION_COS:             plain(math.Cos),
	pb.Elementwise_FUNCTION_SIN:             plain(math.Sin),
	pb.Elementwise_FUNCTION_TANH:            plain(math.Tanh),
	pb.Elementwise_FUNCTION_RELU:            plain(func(x float64) float64 { return max(x, 0) }),
	pb.Elementwise_FUNCTION_CLIP:            {2, func(x, a, b float64) float64 { return min(max(x, a), b) }},
	pb.Elementwise_FUNCTION_YEO_JOHNSON:     {1, yeoJohnson},
	pb.Elementwise_FUNCTION_BOX_COX:         {1, boxCox},
	pb.Elementwise_FUNCTION_NORMAL_QUANTILE: {2, func(x, a, b float64) float64 { return min(max(quantile(x), a), b) }},
	pb.Elementwise_FUNCTION_SUBLINEAR:       plain(sublinear),
	pb.Elementwise_FUNCTION_GREATER:         {1, greater},
}

type elementwise struct {
	function      function
	first, second []float64
	count         int
}

func makeElementwise(message *pb.Elementwise, count int) (rule, error) {
	f, ok := functions[message.GetFunction()]
	if !ok {
		return nil, ErrUnknown
	}
	r := elementwise{f, message.GetFirst(), message.GetSecond(), count}
	for number, values := range [][]float64{r.first, r.second} {
		if (len(values) > 0) != (number < f.parameters) {
			return nil, errors.New("a function has other parameters")
		}
		if len(values) > 0 {
			if err := checkNumbers("parameters", values, count); err != nil {
				return nil, err
			}
		}
	}
	for i := range r.second {
		if r.first[i] > r.second[i] {
			return nil, errors.New("a is above b")
		}
	}
	return r, nil
}

func (r elementwise) width() int      { return r.count }
func (r elementwise) operations() int { return 2 * r.count }
func (r elementwise) apply(inputs, outputs []Value) bool {
	for i, input := range inputs {
		var a, b float64
		if len(r.first) > 0 {
			a = r.first[i]
		}
		if len(r.second) > 0 {
			b = r.second[i]
		}
		outputs[i] = Value{Number: r.function.compute(input.Number, a, b)}
	}
	return false
}

func yeoJohnson(x, a, _ float64) float64 {
	switch {
	case x >= 0 && math.Abs(a) < epsilon:
		return math.Log1p(x)
	case x >= 0:
		return (math.Pow(x+1, a) - 1) / a
	case math.Abs(a-2) <= epsilon:
		return -math.Log1p(-x)
	default: // NaN stays NaN
		if math.IsNaN(x) {
			return x
		}
		return -(math.Pow(1-x, 2-a) - 1) / (2 - a)
	}
}

// boxCox computes as scipy.special.boxcox does, which is exact where a is small.
func boxCox(x, a, _ float64) float64 {
	switch {
	case !(x > 0):
		return math.NaN()
	case a == 0:
		return math.Log(x)
	default:
		return math.Expm1(float64(a*math.Log(x))) / a
	}
}

func sublinear(x float64) float64 {
	if x > 0 {
		return 1 + math.Log(x)
	}
	return x * 0
}

func greater(x, a, _ float64) float64 {
	if math.IsNaN(x) {
		return x
	}
	return bit(x > a)
}

// quantile is that of the standard normal distribution. Source: Cephes Math Library, ndtri.c, whose
// rational approximations SciPy uses, too.
func quantile(p float64) float64 {
	const (
		tail      = 0.13533528323661269189 // exp(-2)
		rootOf2Pi = 2.50662827463100050242
	)
	switch {
	case p == 0:
		return math.Inf(-1)
	case p == 1:
		return math.Inf(1)
	case !(p > 0 && p < 1):
		return math.NaN()
	}
	isUpper := p > 1-tail
	if isUpper {
		p = 1 - p
	}
	if p > tail {
		centered := p - 0.5
		square := centered * centered
		return (centered + centered*(square*polynomial(quantileP0, square)/polynomial(quantileQ0, square))) * rootOf2Pi
	}
	root := math.Sqrt(-2 * math.Log(p))
	inverse := 1 / root
	numerator, denominator := quantileP1, quantileQ1
	if root >= 8 {
		numerator, denominator = quantileP2, quantileQ2
	}
	found := root - math.Log(root)/root - inverse*polynomial(numerator, inverse)/polynomial(denominator, inverse)
	if isUpper {
		return found
	}
	return -found
}

// polynomial evaluates coefficients, the highest power first.
func polynomial(coefficients []float64, x float64) float64 {
	value := 0.0
	for _, c := range coefficients {
		value = float64(value*x) + c
	}
	return value
}

var (
	quantileP0 = []float64{
		-5.99633501014107895267e1, 9.80010754185999661536e1, -5.66762857469070293439e1, 1.39312609387279679503e1,
		-1.23916583867381258016e0,
	}
	quantileQ0 = []float64{
		1.0, 1.95448858338141759834e0, 4.67627912898881538453e0, 8.63602421390890590575e1, -2.25462687854119370527e2,
		2.00260212380060660359e2, -8.20372256168333339912e1, 1.59056225126211695515e1, -1.18331621121330003142e0,
	}
	quantileP1 = []float64{
		4.05544892305962419923e0, 3.15251094599893866154e1, 5.71628192246421288162e1, 4.40805073893200834700e1,
		1.46849561928858024014e1, 2.18663306850790267539e0, -1.40256079171354495875e-1, -3.50424626827848203418e-2,
		-8.57456785154685413611e-4,
	}
	quantileQ1 = []float64{
		1.0, 1.57799883256466749731e1, 4.53907635128879210584e1, 4.13172038254672030440e1, 1.50425385692907503408e1,
		2.50464946208309415979e0, -1.42182922854787788574e-1, -3.80806407691578277194e-2, -9.33259480895457427372e-4,
	}
	quantileP2 = []float64{
		3.23774891776946035970e0, 6.91522889068984211695e0, 3.93881025292474443415e0, 1.33303460815807542389e0,
		2.01485389549179081538e-1, 1.23716634817820021358e-2, 3.01581553508235416007e-4, 2.65806974686737550832e-6,
		6.23974539184983293730e-9,
	}
	quantileQ2 = []float64{
		1.0, 6.02427039364742014255e0, 3.67983563856160859403e0, 1.37702099489081330271e0, 2.16236993594496635890e-1,
		1.34204006088543189037e-2, 3.28014464682127739104e-4, 2.89247864745380683936e-6, 6.79019408009981274425e-9,
	}
)
