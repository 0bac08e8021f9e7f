package sealserve

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"sealserve.example/sealserve/internal/messages"
	pb "sealserve.example/sealserve/internal/sealservev1"
)

func rowsOf(count int) [][]float64 {
	rows := make([][]float64, count)
	for i := range rows {
		rows[i] = []float64{float64(i % 256)}
	}
	return rows
}

func checkIdentity(t *testing.T, p *Predictions, err error, rows [][]float64) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	targets, err := p.Targets()
	if err != nil || len(targets) != len(rows) {
		t.Fatal(err, len(targets))
	}
	for r, row := range rows {
		if targets[r][0] != row[0] {
			t.Fatalf("row %d: %v", r, targets[r])
		}
	}
}

func TestRowsAndItems(t *testing.T) {
	s := newFakeService()
	client := s.dial(t)
	for _, count := range []int{0, 1, 5, fakeDegree} {
		p, err := client.Predict(t.Context(), rowsOf(count))
		checkIdentity(t, p, err, rowsOf(count))
	}
	if s.called("StreamPredict") != 0 {
		t.Error("an item that fits a message was streamed")
	}
	p, err := client.Predict(t.Context(), rowsOf(5*fakeDegree+7))
	checkIdentity(t, p, err, rowsOf(5*fakeDegree+7))
	if s.called("StreamPredict") != 1 || s.called("item") != 3+6 {
		t.Error("items", s.called("item"))
	}
}

func TestBusyServiceIsAskedAgain(t *testing.T) {
	s := newFakeService()
	refusals := 3
	s.refuse = func(*pb.ItemHeader) *pb.Error {
		if refusals--; refusals < 0 {
			return nil
		}
		quota := &pb.QuotaExceeded{Quota: "items", RetryDelay: durationpb.New(time.Millisecond)}
		return &pb.Error{Detail: &pb.Error_QuotaExceeded{QuotaExceeded: quota}}
	}
	client := s.dial(t)
	p, err := client.Predict(t.Context(), rowsOf(1))
	checkIdentity(t, p, err, rowsOf(1))
	refusals = 3
	p, err = client.Predict(t.Context(), rowsOf(3*fakeDegree))
	checkIdentity(t, p, err, rowsOf(3*fakeDegree))
	refusals = math.MaxInt
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var quota *QuotaExceededError
	if _, err := client.Predict(ctx, rowsOf(1)); !errors.As(err, &quota) && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func stale(id string) *pb.Error {
	return &pb.Error{Detail: &pb.Error_StaleConfig{StaleConfig: &pb.StaleConfig{CurrentConfigId: id}}}
}

func TestNewConfigurationIsFollowed(t *testing.T) {
	for _, count := range []int{1, 3 * fakeDegree} {
		s := newFakeService()
		client := s.dial(t)
		s.mu.Lock()
		s.model.ConfigId = "2"
		s.refuse = func(header *pb.ItemHeader) *pb.Error {
			if header.GetConfigId() != "2" {
				return stale("2")
			}
			return nil
		}
		s.mu.Unlock()
		p, err := client.Predict(t.Context(), rowsOf(count))
		checkIdentity(t, p, err, rowsOf(count))
		if client.Model().ConfigID != "2" || s.called("GetModel") != 2 {
			t.Error(client.Model().ConfigID, s.called("GetModel"))
		}
	}
}

func TestServiceThatAlwaysChangesIsLeft(t *testing.T) {
	s := newFakeService()
	client := s.dial(t)
	s.mu.Lock()
	number := 1
	s.describe = func(*pb.GetModelRequest) error {
		number++
		s.model.ConfigId = strconv.Itoa(number)
		return nil
	}
	s.refuse = func(*pb.ItemHeader) *pb.Error { return stale(strconv.Itoa(number + 1)) }
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := client.Predict(ctx, rowsOf(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if asked := s.called("GetModel"); asked > 40 || len(client.configurations.known) > maxConfigurations {
		t.Error("asked", asked, "times, and keeps", len(client.configurations.known))
	}
}

func TestLostKeyIsRegisteredAgain(t *testing.T) {
	for _, count := range []int{1, 3 * fakeDegree} {
		s := newFakeService()
		s.makePrivate()
		client := s.dial(t)
		p, err := client.Predict(t.Context(), rowsOf(count))
		checkIdentity(t, p, err, rowsOf(count))
		s.mu.Lock()
		clear(s.keys)
		s.mu.Unlock()
		p, err = client.Predict(t.Context(), rowsOf(count))
		checkIdentity(t, p, err, rowsOf(count))
		if s.called("RegisterKey") != 2 {
			t.Error("registered", s.called("RegisterKey"), "times")
		}
	}
	s := newFakeService()
	s.makePrivate()
	s.refuse = func(header *pb.ItemHeader) *pb.Error { return keyNotFound(header.GetKeyId()) }
	client := s.dial(t)
	var lost *KeyNotFoundError
	if _, err := client.Predict(t.Context(), rowsOf(1)); !errors.As(err, &lost) {
		t.Error(err)
	}
}

func TestHostileRepliesAreRefused(t *testing.T) {
	residues := func(group *pb.ScoreGroup) *pb.Residues { return group.GetScores()[0].GetResidues() }
	spoilers := map[string]func(group *pb.ScoreGroup){
		"no pair":       func(group *pb.ScoreGroup) { group.Scores = nil },
		"two pairs":     func(group *pb.ScoreGroup) { group.Scores = append(group.Scores, group.Scores[0]) },
		"no form":       func(group *pb.ScoreGroup) { group.Scores[0].Form = nil },
		"a short c1":    func(group *pb.ScoreGroup) { residues(group).C1 = residues(group).C1[8:] },
		"a long c0":     func(group *pb.ScoreGroup) { residues(group).C0 = append(residues(group).C0, 0) },
		"a great prime": func(group *pb.ScoreGroup) { residues(group).C1 = []byte(strings.Repeat("\xff", 8*fakeDegree)) },
		"another score": func(group *pb.ScoreGroup) { // half of t away
			c0 := residues(group).C0
			shifted := (binary.LittleEndian.Uint64(c0) + fakePrime/2) % fakePrime
			residues(group).C0 = append(binary.LittleEndian.AppendUint64(nil, shifted), c0[8:]...)
		},
		"megabytes":       func(group *pb.ScoreGroup) { residues(group).C1 = make([]byte, 4<<20) },
		"a SEAL object":   func(group *pb.ScoreGroup) { group.Scores[0].Form = &pb.EncryptedScores_SealCiphertext{} },
		"a packed pair":   func(group *pb.ScoreGroup) { group.Scores[0].Form = &pb.EncryptedScores_Packed{} },
		"no group at all": func(group *pb.ScoreGroup) { proto.Reset(group) },
	}
	for name, spoil := range spoilers {
		t.Run(name, func(t *testing.T) {
			s := newFakeService()
			s.spoil = spoil
			client := s.dial(t)
			for _, count := range []int{1, 2*fakeDegree + 1} {
				_, err := client.Predict(t.Context(), rowsOf(count))
				if !errors.Is(err, ErrReply) || err.Error() != ErrReply.Error() {
					t.Errorf("%d rows: %v", count, err)
				}
			}
		})
	}
}

func TestHostileStreamsAreRefused(t *testing.T) {
	first := func(stream pb.PredictionService_StreamPredictServer) uint64 {
		request, err := stream.Recv()
		if err != nil {
			return 0
		}
		return request.GetItemId()
	}
	pairs := &pb.ScoreGroup{Scores: []*pb.EncryptedScores{{}, {}, {}}}
	hostile := map[string]func(stream pb.PredictionService_StreamPredictServer) (bool, error){
		"ends without items": func(stream pb.PredictionService_StreamPredictServer) (bool, error) {
			first(stream)
			return true, nil
		},
		"begins in the middle": func(stream pb.PredictionService_StreamPredictServer) (bool, error) {
			group := &pb.ScoreGroup{FirstIndex: 1}
			return true, stream.Send(&pb.StreamPredictResponse{ItemId: first(stream), Scores: group})
		},
		"has too many pairs": func(stream pb.PredictionService_StreamPredictServer) (bool, error) {
			return true, stream.Send(&pb.StreamPredictResponse{ItemId: first(stream), Scores: pairs})
		},
	}
	for name, onStream := range hostile {
		t.Run(name, func(t *testing.T) {
			s := newFakeService()
			s.onStream = onStream
			client := s.dial(t)
			if _, err := client.Predict(t.Context(), rowsOf(2*fakeDegree)); !errors.Is(err, ErrReply) {
				t.Error(err)
			}
		})
	}
	s := newFakeService() // messages of unknown items, and an odd window, change nothing
	s.onStream = func(stream pb.PredictionService_StreamPredictServer) (bool, error) {
		window := &pb.Window{}
		return false, errors.Join(
			stream.Send(&pb.StreamPredictResponse{Window: window}),
			stream.Send(&pb.StreamPredictResponse{ItemId: 77, Scores: pairs}),
		)
	}
	client := s.dial(t)
	p, err := client.Predict(t.Context(), rowsOf(3*fakeDegree))
	checkIdentity(t, p, err, rowsOf(3*fakeDegree))
}

func TestBrokenStreamIsOpenedAgain(t *testing.T) {
	s := newFakeService()
	breaks := 2
	s.onStream = func(stream pb.PredictionService_StreamPredictServer) (bool, error) {
		if breaks--; breaks < 0 {
			return false, nil
		}
		_, _ = stream.Recv()
		return true, failed(codes.Unavailable, &pb.Error{Detail: &pb.Error_Draining{Draining: &pb.Draining{}}})
	}
	client := s.dial(t)
	p, err := client.Predict(t.Context(), rowsOf(3*fakeDegree))
	checkIdentity(t, p, err, rowsOf(3*fakeDegree))
	if s.called("StreamPredict") != 3 {
		t.Error("streams", s.called("StreamPredict"))
	}
}

func TestClosedClientEndsStreams(t *testing.T) {
	s := newFakeService()
	client := s.dial(t)
	stream, err := client.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send([]float64{1}, []float64{300}); err != nil {
		t.Fatal(err)
	}
	for r, isRefused := range []bool{false, true} {
		result, err := stream.Recv()
		if err != nil || errors.As(result.Err, new(*InputError)) != isRefused || result.Index != r {
			t.Error(r, result, err)
		}
	}
	_ = client.Close()
	if err := stream.Send([]float64{1}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
}

func TestHostileDescriptionsAreRefused(t *testing.T) {
	var malformed *ParameterError
	var unknown *RequirementError
	digest := strings.Repeat("ab", 32)
	withSteps := func(m *pb.Model) {
		m.Input.StepsId, m.Input.StepsBytes = digest, 100
		m.Input.Columns = []*pb.Column{{Name: "x", Kind: pb.Column_KIND_NUMBER}}
	}
	cases := map[string]struct {
		spoil  func(m *pb.Model)
		target any
	}{
		"another name":       {func(m *pb.Model) { m.Name = "other" }, &malformed},
		"no offer":           {func(m *pb.Model) { m.Offers = nil }, &malformed},
		"insecure":           {func(m *pb.Model) { m.Offers[0].Parameters.PolyModulusDegree = 1024 }, &malformed},
		"a great grid":       {func(m *pb.Model) { m.Input.Step[0] = 1e-6 }, &malformed},
		"scores wrap":        {func(m *pb.Model) { m.Offers[0].ScoreRadii[0] = fakeT }, &malformed},
		"a terminal's codes": {func(m *pb.Model) { m.ConfigId = "\x1b[2J" }, &malformed},
		"a new capability":   {func(m *pb.Model) { m.Requires = []string{"telepathy"} }, &unknown},
		"endless steps":      {withSteps, &malformed},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := newFakeService()
			s.steps = make([]byte, 30)
			c.spoil(s.model)
			_, err := Dial(t.Context(), s.start(t), WithModel("identity"))
			if !errors.As(err, c.target) {
				t.Errorf("%T: %v", err, err)
			}
			if s.called("item") != 0 {
				t.Error("something was sent")
			}
		})
	}
}

func TestRefusedRowsAreSentLikeOthers(t *testing.T) {
	s := newFakeService()
	client := s.dial(t)
	for i, bad := range []float64{math.NaN(), math.Inf(1), -7, 1e300} {
		for _, count := range []int{1, 2 * fakeDegree} {
			before := s.called("item")
			rows := rowsOf(count)
			rows[count-1] = []float64{bad}
			var refused *InputError
			if _, err := client.Predict(t.Context(), rows); !errors.As(err, &refused) || refused.Row != count-1 {
				t.Error(i, err)
			}
			if sent := s.called("item") - before; sent != (count+fakeDegree-1)/fakeDegree {
				t.Error("items sent:", sent)
			}
		}
	}
}

func TestManyMessagesAreRefusedBeforeTheyAreParsed(t *testing.T) {
	empty, err := proto.Marshal(&pb.ScoreGroup{Scores: []*pb.EncryptedScores{{}, {}, {}, {}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := messages.Unmarshal(empty, new(pb.ScoreGroup), 4); err != nil {
		t.Error(err)
	}
	if err := messages.Unmarshal(empty, new(pb.ScoreGroup), 3); !errors.Is(err, messages.ErrTooMany) {
		t.Error(err)
	}
}

func TestTokensTravelEncrypted(t *testing.T) {
	var credentials *CredentialsError
	if _, err := Dial(t.Context(), "127.0.0.1:1", WithToken("two words")); !errors.As(err, &credentials) {
		t.Error(err)
	}
	for target, isEncrypted := range map[string]bool{
		"127.0.0.1:1": false, "localhost:1": false, "unix:/tmp/socket": false, "[::1]:1": false,
		"192.0.2.1:1": true, "example.org:1": true, "dns:///example.org:1": true, "127.0.0.1.example.org:1": true,
	} {
		to, err := parseAddress(target)
		if err != nil || to.isLocal == isEncrypted {
			t.Error(target, to, err)
		}
	}
	var malformed *InputError
	for _, target := range []string{"", "host", "host:99999", "unix:", "http://host:1", "user@host:1", "a b:1"} {
		if _, err := parseAddress(target); !errors.As(err, &malformed) {
			t.Error(target, err)
		}
	}
}
