package sealserve

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"sealserve.example/sealserve/internal/messages"
	"sealserve.example/sealserve/internal/printable"
	pb "sealserve.example/sealserve/internal/sealservev1"
)

const (
	tooManyCalls   = "Concurrent RPC limit exceeded" // of gRPC's own server
	refusedFor     = time.Second
	maxRetryDelay  = 24 * time.Hour
	maxErrorFields = 64 // messages in an Error
)

// typedError returns the typed error that a failed call carries, or that of its status.
func typedError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return &DeadlineError{}
	}
	if errors.Is(err, context.Canceled) {
		return &CanceledError{}
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	for _, detail := range st.Proto().GetDetails() {
		if detail.GetTypeUrl() != "type.googleapis.com/sealserve.v1.Error" {
			continue
		}
		message := new(pb.Error)
		if messages.Unmarshal(detail.GetValue(), message, maxErrorFields) != nil {
			break
		}
		if typed := errorFromProto(message); typed != nil {
			return typed
		}
		break
	}
	text := printable.Text(st.Message(), printable.MessageCharacters)
	switch st.Code() {
	case codes.Unavailable:
		return &UnavailableError{text}
	case codes.Canceled: // the call's context is not canceled: a server that begins to stop does this
		return &UnavailableError{text}
	case codes.Unauthenticated:
		return &UnauthenticatedError{}
	case codes.DeadlineExceeded:
		return &DeadlineError{}
	case codes.ResourceExhausted:
		if strings.Contains(st.Message(), tooManyCalls) {
			return &QuotaExceededError{Quota: "concurrent_calls", RetryDelay: refusedFor}
		}
	case codes.Internal:
		if strings.Contains(st.Message(), "RST_STREAM") {
			return &UnavailableError{text}
		}
	}
	return &CallError{Code: codeName(st.Code()), Message: text}
}

// codeName is the name of a status as gRPC's documentation has it.
func codeName(code codes.Code) string {
	names := [...]string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
		"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
		"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	}
	if int(code) < len(names) {
		return names[code]
	}
	return code.String()
}

// errorFromProto converts a typed error; nil if it has no detail that this version knows.
func errorFromProto(message *pb.Error) error {
	name := printable.Name
	switch detail := message.GetDetail().(type) {
	case *pb.Error_StaleConfig:
		return &StaleConfigError{name(detail.StaleConfig.GetCurrentConfigId())}
	case *pb.Error_ModelNotFound:
		return &ModelNotFoundError{name(detail.ModelNotFound.GetModel())}
	case *pb.Error_KeyNotFound:
		return &KeyNotFoundError{name(detail.KeyNotFound.GetKeyId())}
	case *pb.Error_ParameterSetNotOffered:
		d := detail.ParameterSetNotOffered
		return &ParameterSetNotOfferedError{layoutName(d.GetLayout()), name(d.GetParameterSet())}
	case *pb.Error_MalformedCiphertext:
		d := detail.MalformedCiphertext
		return &MalformedCiphertextError{int(d.GetIndex()), d.GetReason().String()}
	case *pb.Error_InputMismatch:
		d := detail.InputMismatch
		return &InputMismatchError{name(d.GetField()), d.GetExpected(), d.GetReceived()}
	case *pb.Error_OutOfSequence:
		return &OutOfSequenceError{detail.OutOfSequence.GetExpected(), detail.OutOfSequence.GetReceived()}
	case *pb.Error_LimitExceeded:
		d := detail.LimitExceeded
		return &LimitExceededError{name(d.GetLimit()), d.GetMaximum(), d.GetReceived()}
	case *pb.Error_QuotaExceeded:
		return &QuotaExceededError{name(detail.QuotaExceeded.GetQuota()), duration(detail.QuotaExceeded.GetRetryDelay())}
	case *pb.Error_Draining:
		return &DrainingError{duration(detail.Draining.GetRetryDelay())}
	case *pb.Error_ItemTimeout:
		return &ItemTimeoutError{duration(detail.ItemTimeout.GetWaited())}
	case *pb.Error_Internal:
		return &InternalError{name(detail.Internal.GetRequestId())}
	case *pb.Error_KeyStoreUnavailable:
		return &KeyStoreUnavailableError{duration(detail.KeyStoreUnavailable.GetRetryDelay())}
	case *pb.Error_MalformedKey:
		return &MalformedKeyError{detail.MalformedKey.GetReason().String()}
	case *pb.Error_Unauthenticated:
		return &UnauthenticatedError{}
	case *pb.Error_PermissionDenied:
		return &PermissionDeniedError{name(detail.PermissionDenied.GetPermission())}
	case *pb.Error_IdleTimeout:
		return &IdleTimeoutError{duration(detail.IdleTimeout.GetWaited())}
	case *pb.Error_ResourceUnavailable:
		d := detail.ResourceUnavailable
		return &ResourceUnavailableError{name(d.GetResource()), duration(d.GetRetryDelay())}
	}
	return nil
}

// duration converts a duration of the service, which may be hostile: it is 0 to a day.
func duration(d *durationpb.Duration) time.Duration {
	return min(max(0, d.AsDuration()), maxRetryDelay)
}

func layoutName(l pb.Layout) string {
	name := strings.TrimPrefix(l.String(), "LAYOUT_")
	return strings.ReplaceAll(strings.ToLower(name), "_", "-")
}
