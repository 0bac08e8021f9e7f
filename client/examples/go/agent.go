package main

import (
	"context"
	"os"
	"strings"

	pb "sealserve.example/stubs/sealserve/inference"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// maxMessageBytes is the agent's limit. gRPC's own for replies is 4 MB.
const maxMessageBytes = 64 << 20

// token authorizes each call. The agent is on this machine, so that the token needs no TLS.
type token string

func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(t)}, nil
}

func (token) RequireTransportSecurity() bool { return false }

// dial returns a connection to the agent at unix:PATH or 127.0.0.1:PORT.
func dial(address, tokenFile string) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithNoProxy(), // plaintext stays on this machine
	}
	if tokenFile != "" {
		text, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil, err
		}
		options = append(options, grpc.WithPerRPCCredentials(token(strings.TrimSpace(string(text)))))
	}
	return grpc.NewClient(address, options...)
}

// request asks for all outputs of rows.
func request(model, id string, inputs []*pb.ModelInferRequest_InferInputTensor) *pb.ModelInferRequest {
	return &pb.ModelInferRequest{ModelName: model, Id: id, Inputs: inputs}
}

// reason returns the reason of a failed call, such as OUT_OF_RANGE. A program acts on it.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "agent.sealserve" {
			return info.Reason
		}
	}
	return "-"
}
