package sealserve

// A service in this process, as honest or as hostile as a test wants it. Its model is x -> x, for
// which the reply to an item is its ciphertexts: no homomorphic arithmetic is needed.

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"sealserve.example/sealserve/internal/parameters"
	pb "sealserve.example/sealserve/internal/sealservev1"
)

const (
	fakeDegree = 2048
	fakePrime  = 0x3FFFFFFFFED001
	fakeT      = 1 << 20
)

// fakeService is the service. Its functions change what it does; they run under its lock.
type fakeService struct {
	pb.UnimplementedModelServiceServer
	pb.UnimplementedKeyServiceServer
	pb.UnimplementedPredictionServiceServer

	mu       sync.Mutex
	model    *pb.Model
	steps    []byte
	keys     map[string]bool
	calls    map[string]int
	describe func(request *pb.GetModelRequest) error
	refuse   func(header *pb.ItemHeader) *pb.Error
	spoil    func(group *pb.ScoreGroup)
	onStream func(stream pb.PredictionService_StreamPredictServer) (isDone bool, err error)
}

func newFakeService() *fakeService {
	id := parameters.ParmsID(1, fakeDegree, []uint64{fakePrime}, fakeT)
	return &fakeService{
		keys: make(map[string]bool), calls: make(map[string]int),
		model: &pb.Model{
			Name: "identity", ConfigId: "1",
			Input:  &pb.Input{FeatureCount: 1, Minimum: []float64{0}, Maximum: []float64{255}, Step: []float64{1}},
			Output: &pb.Output{Task: pb.Output_TASK_REGRESSION, ScoreCount: 1, Link: pb.Output_LINK_NONE, ScalarTarget: true},
			Limits: &pb.Limits{
				MaxMessageBytes: 1 << 20, MaxOpenItems: 4, ItemTimeout: durationpb.New(time.Minute), WindowBytes: 1 << 20,
			},
			Offers: []*pb.Offer{{
				Layout: pb.Layout_LAYOUT_ROW, Weights: pb.Weights_WEIGHTS_OPEN, RowsPerItem: fakeDegree,
				ClassesPerPolynomial: 1, CiphertextsPerItem: 1, ScoreScale: 1, ScoreCenters: []int64{127},
				ScoreRadii: []int64{128}, Verdict: pb.Offer_VERDICT_OK,
				Cost: &pb.Cost{RequestBytes: 1 << 15, ReplyBytes: 1 << 15, HeldBytes: 1 << 16},
				Parameters: &pb.EncryptionParameters{
					ParameterSet: "row-2048-54", Scheme: pb.Scheme_SCHEME_BFV, PolyModulusDegree: fakeDegree,
					CoeffModulus: []uint64{fakePrime}, DataPrimeCount: 1, PlainModulus: fakeT, CiphertextScale: 1,
					ParmsId: id[:],
				},
			}},
		},
	}
}

// makePrivate makes the model need a key, which the service does not use.
func (s *fakeService) makePrivate() {
	s.model.Offers[0].Weights = pb.Weights_WEIGHTS_PRIVATE
	s.model.Offers[0].RequiredKey = pb.KeyKind_KEY_KIND_PUBLIC_ENCRYPTION_KEY
}

// start serves until the test ends, and returns the address.
func (s *fakeService) start(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterModelServiceServer(server, s)
	pb.RegisterKeyServiceServer(server, s)
	pb.RegisterPredictionServiceServer(server, s)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// dial connects a client to the service.
func (s *fakeService) dial(t *testing.T, opts ...Option) *Client {
	t.Helper()
	client, err := Dial(t.Context(), s.start(t), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func (s *fakeService) called(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[name]
}

func failed(code codes.Code, e *pb.Error) error {
	st, err := status.New(code, "refused").WithDetails(e)
	if err != nil {
		return err
	}
	return st.Err()
}

func (s *fakeService) GetModel(_ context.Context, request *pb.GetModelRequest) (*pb.GetModelResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls["GetModel"]++
	if s.describe != nil {
		if err := s.describe(request); err != nil {
			return nil, err
		}
	}
	return &pb.GetModelResponse{Model: proto.CloneOf(s.model)}, nil
}

func (s *fakeService) GetInputSteps(
	_ *pb.GetInputStepsRequest, stream pb.ModelService_GetInputStepsServer,
) error {
	for stream.Context().Err() == nil { // again and again: a client has to stop
		if err := stream.Send(&pb.GetInputStepsResponse{Piece: s.steps}); err != nil {
			return err
		}
	}
	return nil
}

func (s *fakeService) RegisterKey(stream pb.KeyService_RegisterKeyServer) error {
	var header *pb.KeyHeader
	var data []byte
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if request.GetHeader() != nil {
			header = request.GetHeader()
		}
		data = append(data, request.GetChunk().GetData()...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls["RegisterKey"]++
	if digest := sha256.Sum256(data); hex.EncodeToString(digest[:]) != header.GetKeyId() ||
		uint64(len(data)) != header.GetByteCount() {
		return failed(codes.InvalidArgument, &pb.Error{Detail: &pb.Error_MalformedKey{MalformedKey: &pb.MalformedKey{}}})
	}
	s.keys[header.GetKeyId()] = true
	return stream.SendAndClose(&pb.RegisterKeyResponse{Key: &pb.Key{KeyId: header.GetKeyId()}})
}

func keyNotFound(id string) *pb.Error {
	return &pb.Error{Detail: &pb.Error_KeyNotFound{KeyNotFound: &pb.KeyNotFound{KeyId: id}}}
}

func (s *fakeService) GetKey(_ context.Context, request *pb.GetKeyRequest) (*pb.GetKeyResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.keys[request.GetKeyId()] {
		return nil, failed(codes.NotFound, keyNotFound(request.GetKeyId()))
	}
	return &pb.GetKeyResponse{Key: &pb.Key{KeyId: request.GetKeyId()}}, nil
}

// reply answers an item, or refuses it.
func (s *fakeService) reply(header *pb.ItemHeader, ciphertext []byte) (*pb.ScoreGroup, *pb.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls["item"]++
	if s.refuse != nil {
		if refused := s.refuse(header); refused != nil {
			return nil, refused
		}
	}
	if header.GetKeyId() != "" && !s.keys[header.GetKeyId()] {
		return nil, keyNotFound(header.GetKeyId())
	}
	c0, c1 := ciphertext[113:113+8*header.GetRowCount()], ciphertext[113+8*fakeDegree:]
	group := &pb.ScoreGroup{Scores: []*pb.EncryptedScores{
		{Form: &pb.EncryptedScores_Residues{Residues: &pb.Residues{C0: c0, C1: c1}}},
	}}
	if s.spoil != nil {
		s.spoil(group)
	}
	return group, nil
}

func (s *fakeService) Predict(_ context.Context, request *pb.PredictRequest) (*pb.PredictResponse, error) {
	group, refused := s.reply(request.GetHeader(), request.GetCiphertexts()[0])
	if refused != nil {
		return nil, failed(codes.FailedPrecondition, refused)
	}
	return &pb.PredictResponse{Scores: group, Done: &pb.ItemDone{}}, nil
}

func (s *fakeService) StreamPredict(stream pb.PredictionService_StreamPredictServer) error {
	s.mu.Lock()
	s.calls["StreamPredict"]++
	onStream := s.onStream
	s.mu.Unlock()
	if onStream != nil {
		if isDone, err := onStream(stream); isDone {
			return err
		}
	}
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if request.GetItemId() == 0 {
			continue
		}
		response := &pb.StreamPredictResponse{ItemId: request.GetItemId()}
		group, refused := s.reply(request.GetHeader(), request.GetChunk().GetCiphertexts()[0])
		if refused != nil {
			response.End = &pb.StreamPredictResponse_Error{Error: refused}
		} else {
			response.Scores = group
			response.End = &pb.StreamPredictResponse_Done{Done: &pb.ItemDone{}}
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}
