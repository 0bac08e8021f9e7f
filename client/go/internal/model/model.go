// Package model checks and converts the descriptions of models, which may be hostile.
package model

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"sealserve.example/sealserve/internal/cipher"
	"sealserve.example/sealserve/internal/grid"
	"sealserve.example/sealserve/internal/layout"
	"sealserve.example/sealserve/internal/output"
	"sealserve.example/sealserve/internal/parameters"
	"sealserve.example/sealserve/internal/printable"
	pb "sealserve.example/sealserve/internal/sealservev1"
	"sealserve.example/sealserve/internal/steps"
)

// StepsCapability is what a model requires that has published steps.
const StepsCapability = "steps"

// Model is a checked description of a model.
type Model struct {
	Name, Version, ConfigID string
	// Columns are those of rows; without names and ranges if the model describes features only.
	Columns  []Column
	HasNames bool
	// HasColumns tells whether columns say what they take.
	HasColumns bool
	Grid       *grid.Grid
	Output     *output.Output
	// Offers are those that this version understands, in the service's order of preference.
	Offers []*Offer
	// Sets are the parameter sets of all offers whose enumerators this version knows.
	Sets     []string
	Limits   Limits
	Requires []string
	// StepsID is the SHA-256 of the steps, "" if there are none, and StepsBytes their length.
	StepsID    string
	StepsBytes int
	// Steps is nil until it has been fetched, and if there are none.
	Steps *steps.Program
}

// Offer is a checked way to encrypt for a model.
type Offer struct {
	Layout         *layout.Layout
	Parameters     *parameters.Parameters
	PrivateWeights bool
	RowsPerItem    int
	ScoreScale     float64
	ScoreCenters   []int64
	ScoreRadii     []int64
	// ScoreErrorBound is the largest error of a score, for every row within the range.
	ScoreErrorBound float64
	// Bits says how replies are packed; nil if they are residues.
	Bits *cipher.ReplyBits
	// TakesPacked tells whether the service takes packed ciphertexts.
	TakesPacked bool
	NeedsKey    bool
	Verdict     string

	RequestBytes, ReplyBytes, HeldBytes uint64
	ServerSeconds                       float64
}

// Limits are those of the service.
type Limits struct {
	MaxMessageBytes int64
	MaxOpenItems    int
	WindowBytes     uint64
	// IdleTimeout is 0 if a stream may be silent for ever.
	IdleTimeout time.Duration
}

// OfferError says that an offer is refused, and why.
type OfferError struct {
	// Set is the name of its parameter set.
	Set string
	Err error
}

func (e *OfferError) Error() string { return fmt.Sprintf("%s: %v", e.Set, e.Err) }

// Unwrap returns the reason.
func (e *OfferError) Unwrap() error { return e.Err }

// UnknownRequirement returns the first capability that a model requires and this version lacks.
func UnknownRequirement(message *pb.Model) (name string, isUnknown bool) {
	for _, name := range message.GetRequires() {
		if name != StepsCapability {
			return name, true
		}
	}
	return "", false
}

// FromProto checks and converts a model.
//
// An offer with an enumerator that this version does not know is left out, and so is one that this
// module does not encrypt for. The caller checks what the model requires.
func FromProto(message *pb.Model) (*Model, error) {
	m, err := fromProto(message)
	if err != nil {
		return nil, fmt.Errorf("model %q: %w", printable.Name(message.GetName()), err)
	}
	return m, nil
}

func fromProto(message *pb.Model) (*Model, error) {
	if err := checkCounts(message); err != nil {
		return nil, err
	}
	input := message.GetInput()
	m := &Model{
		Name: message.GetName(), Version: printable.Name(message.GetVersion()), ConfigID: message.GetConfigId(),
		Requires: message.GetRequires(), StepsID: input.GetStepsId(), StepsBytes: int(input.GetStepsBytes()),
	}
	if err := m.readColumns(input); err != nil {
		return nil, err
	}
	var err error
	m.Grid, err = grid.New(int(input.GetFeatureCount()), input.GetMinimum(), input.GetMaximum(), input.GetStep(),
		input.GetKeeps(), input.GetGroup(), input.GetExactlyOne())
	if err != nil {
		return nil, err
	}
	if m.Output, err = output.FromProto(message.GetOutput()); err != nil {
		return nil, fmt.Errorf("its output: %w", err)
	}
	if m.Limits, err = limitsFromProto(message.GetLimits()); err != nil {
		return nil, err
	}
	for _, offer := range message.GetOffers() {
		if !isKnown(offer) {
			continue
		}
		converted, err := m.offerFromProto(offer)
		if err != nil {
			return nil, &OfferError{Set: printable.Name(offer.GetParameters().GetParameterSet()), Err: err}
		}
		m.Sets = append(m.Sets, offer.GetParameters().GetParameterSet())
		if converted != nil {
			m.Offers = append(m.Offers, converted)
		}
	}
	return m, nil
}

func limitsFromProto(message *pb.Limits) (Limits, error) {
	sizes := []uint64{uint64(message.GetMaxMessageBytes()), uint64(message.GetMaxOpenItems()), message.GetWindowBytes()}
	for _, size := range append(sizes, 1+message.GetMaxKeyBytes()) {
		if size < 1 || size > maxBytes {
			return Limits{}, errors.New("its limits on bytes and items are zero or absurd")
		}
	}
	if seconds(message.GetItemTimeout()) <= 0 || seconds(message.GetIdleTimeout()) < 0 {
		return Limits{}, errors.New("its time limits are zero or negative")
	}
	return Limits{
		MaxMessageBytes: int64(message.GetMaxMessageBytes()),
		MaxOpenItems:    min(int(message.GetMaxOpenItems()), maxOpenItems),
		WindowBytes:     message.GetWindowBytes(),
		IdleTimeout:     time.Duration(seconds(message.GetIdleTimeout()) * float64(time.Second)),
	}, nil
}

// seconds converts a duration, which a hostile service may make longer than any time.
func seconds(d *durationpb.Duration) float64 {
	return min(float64(d.GetSeconds())+float64(d.GetNanos())*1e-9, maxSeconds)
}

// isKnown tells whether an offer has no enumerator that this version does not know.
func isKnown(offer *pb.Offer) bool {
	known := func(number int32, names map[int32]string) bool { return number != 0 && names[number] != "" }
	isVerdict := offer.GetVerdict() == 0 || known(int32(offer.GetVerdict()), pb.Offer_Verdict_name)
	isKey := offer.GetRequiredKey() == 0 || known(int32(offer.GetRequiredKey()), pb.KeyKind_name)
	return known(int32(offer.GetLayout()), pb.Layout_name) && isVerdict && isKey &&
		known(int32(offer.GetParameters().GetScheme()), pb.Scheme_name) &&
		known(int32(offer.GetWeights()), pb.Weights_name)
}

// offerFromProto checks and converts an offer. It returns nil for one that this module does not
// encrypt for: of EI slots, or with another key than that of its mode.
func (m *Model) offerFromProto(message *pb.Offer) (*Offer, error) {
	if !printable.Is(message.GetParameters().GetParameterSet()) {
		return nil, errors.New("the name of a parameter set is too long, or has characters that cannot be shown")
	}
	if err := checkOffer(message, m.Output.Scores); err != nil {
		return nil, err
	}
	p, err := parameters.FromProto(message.GetParameters())
	if err != nil {
		return nil, err
	}
	isSlots := message.GetLayout() == pb.Layout_LAYOUT_EI_SLOTS
	if isSlots != (message.GetParameters().GetScheme() == pb.Scheme_SCHEME_CKKS) {
		return nil, errors.New("the scheme is not that of the layout")
	}
	if err := checkScores(message, m.Output.Scores, isSlots); err != nil {
		return nil, err
	}
	bits, err := replyBits(message, p)
	if err != nil {
		return nil, err
	}
	isPrivate := message.GetWeights() == pb.Weights_WEIGHTS_PRIVATE
	if isSlots {
		return nil, nil
	}
	o := &Offer{
		Parameters: p, PrivateWeights: isPrivate, RowsPerItem: int(message.GetRowsPerItem()),
		ScoreScale: message.GetScoreScale(), ScoreCenters: message.GetScoreCenters(), ScoreRadii: message.GetScoreRadii(),
		ScoreErrorBound: message.GetScoreErrorBound(), Bits: bits, NeedsKey: message.GetRequiredKey() != 0,
		Verdict:      verdicts[message.GetVerdict()],
		RequestBytes: message.GetCost().GetRequestBytes(), ReplyBytes: message.GetCost().GetReplyBytes(),
		HeldBytes: message.GetCost().GetHeldBytes(), ServerSeconds: message.GetCost().GetServerSeconds(),
	}
	forms := message.GetCiphertextForms()
	for _, form := range forms[:min(len(forms), maxCiphertextForms)] {
		o.TakesPacked = o.TakesPacked || form == pb.Offer_CIPHERTEXT_FORM_PACKED
	}
	if err := m.layOut(o, message); err != nil {
		return nil, err
	}
	needed := pb.KeyKind_KEY_KIND_UNSPECIFIED
	if isPrivate {
		needed = pb.KeyKind_KEY_KIND_PUBLIC_ENCRYPTION_KEY
	}
	if message.GetRequiredKey() != needed {
		return nil, nil
	}
	return o, nil
}

var verdicts = map[pb.Offer_Verdict]string{
	pb.Offer_VERDICT_OK: "OK", pb.Offer_VERDICT_UNCHECKED: "UNCHECKED",
	pb.Offer_VERDICT_WARN: "WARN", pb.Offer_VERDICT_REFUSE: "REFUSE",
}

// layOut makes the layout of an offer, and checks what the description says of it.
func (m *Model) layOut(o *Offer, message *pb.Offer) error {
	kind := layout.Row
	if message.GetLayout() == pb.Layout_LAYOUT_COLUMN {
		kind = layout.Column
	}
	var err error
	o.Layout, err = layout.New(kind, o.Parameters.N, m.Grid.Features(), m.Output.Scores,
		int(message.GetClassesPerPolynomial()))
	if err != nil {
		return &PackingError{err}
	}
	mayBeFewer := o.PrivateWeights && kind == layout.Row
	fits := o.RowsPerItem == o.Layout.Rows() || (mayBeFewer && o.RowsPerItem >= 1 && o.RowsPerItem <= o.Layout.Rows())
	if !fits || int64(message.GetCiphertextsPerItem()) != int64(o.Layout.Ciphertexts()) {
		return &PackingError{errors.New("the published sizes of an item contradict its packing")}
	}
	if int64(o.Layout.Pairs())*int64(o.MaxPairBytes()) > maxReplyBytes {
		return &PackingError{fmt.Errorf("a reply could have more than %d bytes", int64(maxReplyBytes))}
	}
	if m.Grid.MaxLevels() >= o.Parameters.T {
		return &PackingError{errors.New("features on its grid do not fit the plaintext modulus")}
	}
	return nil
}

// PackingError says that the sizes of an offer contradict its layout.
type PackingError struct{ Err error }

func (e *PackingError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *PackingError) Unwrap() error { return e.Err }

// MaxPairBytes is the most bytes of a polynomial pair of a reply.
func (o *Offer) MaxPairBytes() int {
	n := o.Parameters.N
	if o.Bits == nil {
		return 16*n*o.Parameters.DataPrimes + 256
	}
	places := o.RowsPerItem * o.Layout.Classes
	return (places*o.Bits.C0+7)/8 + (n*o.Bits.C1+7)/8
}

// SetSteps sets the steps that StepsID names.
func (m *Model) SetSteps(program *steps.Program) error {
	if program.Columns() != len(m.Columns) || program.FeatureCount() != m.Grid.Features() {
		return fmt.Errorf("model %q: its steps are of other columns or features than it describes", m.Name)
	}
	for i, column := range m.Columns {
		if program.IsText[i] != column.Kind.IsText() {
			return fmt.Errorf("model %q: its steps take another kind of column than it describes", m.Name)
		}
	}
	m.Steps = program
	return nil
}

func isAmount(x float64) bool { return x >= 0 && !math.IsInf(x, 1) }
