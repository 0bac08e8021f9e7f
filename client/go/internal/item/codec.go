// Package item encrypts rows into items, and decrypts the replies. No I/O.
package item

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"sealserve.example/sealserve/internal/cipher"
	"sealserve.example/sealserve/internal/layout"
	"sealserve.example/sealserve/internal/model"
	pb "sealserve.example/sealserve/internal/sealservev1"
)

// Errors of replies, beside those of packages cipher and bitpack. A user gets the same error for all
// of them, so that nobody learns from it what a ciphertext decrypts to.
var (
	ErrCount = errors.New("a reply has another number of polynomial pairs")
	ErrForm  = errors.New("a polynomial pair has another form than the offer's")
	ErrRange = errors.New("a score is further from its centre than its radius")
)

// Codec encrypts for one offer of a model. Goroutines may share it.
type Codec struct {
	Model *model.Model
	Offer *model.Offer
	// PublicKey is registered before the first item; nil if the weights are open. KeyID is its id.
	PublicKey []byte
	KeyID     string

	encryptor *cipher.Encryptor
	decryptor *cipher.Decryptor
}

// NewCodec makes a codec. The key has to fit the offer.
func NewCodec(m *model.Model, offer *model.Offer, key *cipher.SecretKey, form cipher.Form) *Codec {
	if form == cipher.Packed && !offer.TakesPacked {
		form = cipher.Seeded
	}
	c := &Codec{
		Model: m, Offer: offer,
		encryptor: cipher.NewEncryptor(offer.Parameters, key, form),
		decryptor: cipher.NewDecryptor(offer.Parameters, key, offer.Bits),
	}
	if offer.NeedsKey {
		c.PublicKey = key.PublicKey()
		digest := sha256.Sum256(c.PublicKey)
		c.KeyID = hex.EncodeToString(digest[:])
	}
	return c
}

// Bytes is the length of all ciphertexts of an item.
func (c *Codec) Bytes() int { return c.Ciphertexts() * c.encryptor.CiphertextBytes() }

// Ciphertexts is the number of ciphertexts of an item.
func (c *Codec) Ciphertexts() int { return c.Offer.Layout.Ciphertexts() }

// FitsMessage tells whether an item and its reply may each travel in one message.
func (c *Codec) FitsMessage() bool {
	return max(uint64(c.Bytes()), c.Offer.ReplyBytes) <= uint64(c.Model.Limits.MaxMessageBytes)
}

// Header describes an item of so many rows.
func (c *Codec) Header(rows int) *pb.ItemHeader {
	form, kind := pb.ReplyForm_REPLY_FORM_RESIDUES, pb.Layout_LAYOUT_ROW
	if c.Offer.Bits != nil {
		form = pb.ReplyForm_REPLY_FORM_PACKED
	}
	if c.Offer.Layout.Kind == layout.Column {
		kind = pb.Layout_LAYOUT_COLUMN
	}
	return &pb.ItemHeader{
		Model: c.Model.Name, ConfigId: c.Model.ConfigID, Layout: kind, ParameterSet: c.Offer.Parameters.Set,
		RowCount: uint32(rows), CiphertextCount: uint32(c.Ciphertexts()), KeyId: c.KeyID,
		ReplyForms: []pb.ReplyForm{form},
	}
}

// Encrypt encrypts one ciphertext of rows on the grid.
func (c *Codec) Encrypt(rows [][]uint64, ciphertext int) []byte {
	plaintext := make([]uint64, c.Offer.Parameters.N)
	c.Offer.Layout.Plaintext(rows, ciphertext, plaintext)
	return c.encryptor.Encrypt(plaintext)
}

// Decrypted are the scores of an item.
type Decrypted struct {
	// Scores are by row.
	Scores [][]float64
	// IsPlausible tells whether each score is within its published range; those of dummies do not
	// count. If it is false, nothing of the scores may be kept.
	IsPlausible bool
}

// Read decrypts the reply to an item of so many rows. isRefused tells which rows were dummies.
//
// It returns an error only if the reply is malformed, and takes no other path because of what it
// decrypts to.
func (c *Codec) Read(rows int, pairs []*pb.EncryptedScores, isRefused []bool) (Decrypted, error) {
	l := c.Offer.Layout
	if len(pairs) != l.Pairs() {
		return Decrypted{}, ErrCount
	}
	found := Decrypted{Scores: make([][]float64, rows), IsPlausible: true}
	for r := range found.Scores {
		found.Scores[r] = make([]float64, l.Scores)
	}
	outside := uint64(0)
	for number, pair := range pairs {
		first, classes := l.ClassesIn(number)
		residues, err := c.decrypt(pair, l.Places(number, rows))
		if err != nil {
			return Decrypted{}, err
		}
		for i, residue := range residues {
			row, class := i/classes, first+i%classes
			score, isOutside := c.score(residue, class)
			found.Scores[row][class] = score
			if len(isRefused) > 0 && isRefused[row] {
				isOutside = 0
			}
			outside |= isOutside
		}
	}
	found.IsPlausible = outside == 0
	return found, nil
}

func (c *Codec) decrypt(pair *pb.EncryptedScores, places []int) ([]uint64, error) {
	if c.Offer.Bits != nil {
		packed, ok := pair.GetForm().(*pb.EncryptedScores_Packed)
		if !ok {
			return nil, ErrForm
		}
		return c.decryptor.Decrypt(packed.Packed.GetC0(), packed.Packed.GetC1(), places)
	}
	residues, ok := pair.GetForm().(*pb.EncryptedScores_Residues)
	if !ok {
		return nil, ErrForm
	}
	return c.decryptor.Decrypt(residues.Residues.GetC0(), residues.Residues.GetC1(), places)
}

// score reads the residue of a score modulo t, and returns 1 if it is outside its range.
func (c *Codec) score(residue uint64, class int) (score float64, isOutside uint64) {
	t := c.Offer.Parameters.T
	radius := c.Offer.ScoreRadii[class]
	lowest := c.Offer.ScoreCenters[class] - radius
	distance := residue + t - residueOf(lowest, t) // below 2 t
	if distance >= t {
		distance -= t
	}
	if distance > 2*uint64(radius) {
		isOutside = 1
	}
	return float64(lowest+int64(distance)) / c.Offer.ScoreScale, isOutside
}

func residueOf(x int64, t uint64) uint64 {
	if x >= 0 {
		return uint64(x) % t
	}
	return (t - (-uint64(x))%t) % t
}
