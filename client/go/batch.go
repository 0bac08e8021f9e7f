package sealserve

import (
	"sealserve.example/sealserve/internal/item"
	pb "sealserve.example/sealserve/internal/sealservev1"
)

const ciphertextsAChunk = 8

// batch is rows that travel in one item.
type batch struct {
	first int // the index of its first row among all rows of the call
	rows  rowSource
	codec *item.Codec
	q     quantized

	failures int
	changed  changes
}

// outcome is what became of a batch: the pairs of its reply, or an error.
type outcome struct {
	batch *batch
	pairs []*pb.EncryptedScores
	err   error
}

// batches splits rows into batches for a codec.
func (c *Client) batches(codec *item.Codec, rows rowSource, first int) ([]*batch, error) {
	var found []*batch
	for start := 0; start < rows.len(); start += codec.Offer.RowsPerItem {
		part := rows.part(start, min(start+codec.Offer.RowsPerItem, rows.len()))
		q, err := quantize(part, codec.Model, c.options.clip)
		if err != nil {
			return nil, err
		}
		found = append(found, &batch{first: first + start, rows: part, codec: codec, q: q})
	}
	return found, nil
}

// scores decrypts the reply to a batch. The error is that of the reply; refused rows do not count.
func (o *outcome) scores() (item.Decrypted, error) {
	if o.err != nil {
		return item.Decrypted{}, o.err
	}
	decrypted, err := o.batch.codec.Read(o.batch.rows.len(), o.pairs, o.batch.q.isRefused)
	if err != nil || !decrypted.IsPlausible {
		return item.Decrypted{}, ErrReply
	}
	return decrypted, nil
}

// send sends the messages of a batch: a chunk in each, the header in the first. A chunk has
// chunkBytes or ciphertextsAChunk ciphertexts, whichever is more, within the service's limit.
func (b *batch) send(id uint64, send func(*pb.StreamPredictRequest) error) error {
	total := b.codec.Ciphertexts()
	size := b.codec.Bytes() / total
	count := max(ciphertextsAChunk, chunkBytes/size)
	count = max(1, min(count, int(b.codec.Model.Limits.MaxMessageBytes)/size))
	header := b.codec.Header(b.rows.len())
	for first := 0; first < total; first += count {
		ciphertexts := encryptAll(b.codec, b.q.cells, first, min(first+count, total))
		request := &pb.StreamPredictRequest{
			ItemId: id, Header: header, Chunk: &pb.Chunk{FirstIndex: uint32(first), Ciphertexts: ciphertexts},
		}
		if err := send(request); err != nil {
			return err
		}
		header = nil
	}
	return nil
}
