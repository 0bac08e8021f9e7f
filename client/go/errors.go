package sealserve

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrClosed means that the client or the stream has been closed.
var ErrClosed = errors.New("sealserve: the client has been closed: dial again")

// ErrReply means that a reply fails a check, and that nothing of it was kept. The text is the same
// for every cause, so that nobody learns from it what a ciphertext decrypts to.
var ErrReply = errors.New("sealserve: the reply is not a well-formed answer of this model, and nothing of it was " +
	"kept: make sure that you trust the service")

// InputReason is why rows or arguments are refused.
type InputReason int

// The reasons of an InputError.
const (
	// BadArgument means that an argument or the type of a value is wrong.
	BadArgument InputReason = iota
	// FeatureCount means that a row does not have as many values as the model has columns.
	FeatureCount
	// FeatureName means that the columns of a table are not the model's.
	FeatureName
	// NotFinite means that a value is missing or infinite.
	NotFinite
	// OutOfRange means that a value is outside the declared range, or that a row breaks a group.
	OutOfRange
	// OffGrid means that a value is between two values of the grid that it is declared to be on.
	OffGrid
	// NotTaken means that a column or a published step does not take a value.
	NotTaken
)

// InputError refuses rows or arguments. Nothing that a refused row holds was encrypted.
type InputError struct {
	// Reason is why.
	Reason InputReason
	// Row is the index of the first refused row, or -1.
	Row int
	// Column is the index of its column, or of the feature if the model has steps; -1 if neither.
	Column int
	text   string
}

func (e *InputError) Error() string { return "sealserve: " + e.text }

func inputError(reason InputReason, row, column int, format string, args ...any) *InputError {
	return &InputError{Reason: reason, Row: row, Column: column, text: fmt.Sprintf(format, args...)}
}

// CredentialsError means that credentials cannot be used, or that a token would travel in plaintext.
// Nothing was sent.
type CredentialsError struct{ text string }

func (e *CredentialsError) Error() string { return "sealserve: " + e.text }

// NoSuchMethodError means that the model has no probabilities, no labels or no decision function.
type NoSuchMethodError struct{ Method string }

func (e *NoSuchMethodError) Error() string {
	return fmt.Sprintf("sealserve: this model has no %s", e.Method)
}

// ParameterError means that a description, its steps or its encryption parameters are malformed,
// contradict themselves or are below 128 bits of security, or that no offer can be used.
type ParameterError struct{ Err error }

func (e *ParameterError) Error() string { return "sealserve: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ParameterError) Unwrap() error { return e.Err }

// RequirementError means that the model requires what this version cannot do. Nothing was sent.
type RequirementError struct{ Err error }

func (e *RequirementError) Error() string { return "sealserve: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *RequirementError) Unwrap() error { return e.Err }

// UnavailableError means that nothing serves at the address, or that the connection broke.
type UnavailableError struct{ Message string }

func (e *UnavailableError) Error() string {
	return "sealserve: the service cannot be reached: " + e.Message
}

// DeadlineError means that the answer did not come in time. It is context.DeadlineExceeded, too.
type DeadlineError struct{}

func (*DeadlineError) Error() string { return "sealserve: the answer did not come in time" }

// Is tells whether the other error is context.DeadlineExceeded.
func (*DeadlineError) Is(target error) bool { return target == context.DeadlineExceeded }

// CanceledError means that the context of a call was canceled. It is context.Canceled, too.
type CanceledError struct{}

func (*CanceledError) Error() string { return "sealserve: the call was canceled" }

// Is tells whether the other error is context.Canceled.
func (*CanceledError) Is(target error) bool { return target == context.Canceled }

// CallError means that a call failed in another way: it has gRPC's status.
type CallError struct {
	// Code is the name of the status, such as INTERNAL.
	Code    string
	Message string
}

func (e *CallError) Error() string {
	return fmt.Sprintf("sealserve: the call failed with %s: %s", e.Code, e.Message)
}

// ServiceError is what all errors have in common by which the service refuses an item or a call. Each
// is a detail of Error in errors.proto.
//
//	var refused sealserve.ServiceError
//	if errors.As(err, &refused) { ... }
type ServiceError interface {
	error
	// Detail is the name of the detail, such as "stale_config".
	Detail() string
}

// Temporary is what errors have in common of a service that may accept later what it refuses now.
type Temporary interface {
	ServiceError
	// RetryAfter is how long to wait before the next attempt.
	RetryAfter() time.Duration
}

// StaleConfigError means that an item was made for another configuration of the model.
type StaleConfigError struct{ CurrentConfigID string }

// Detail is the name of the detail.
func (*StaleConfigError) Detail() string { return "stale_config" }
func (*StaleConfigError) Error() string {
	return "sealserve: the model's configuration has changed: dial again, or send the rows again"
}

// ModelNotFoundError means that no model of that name is served.
type ModelNotFoundError struct{ Model string }

// Detail is the name of the detail.
func (*ModelNotFoundError) Detail() string { return "model_not_found" }
func (e *ModelNotFoundError) Error() string {
	if e.Model == "" {
		return "sealserve: name a model: the service has several, or none"
	}
	return fmt.Sprintf("sealserve: no model named %q is served", e.Model)
}

// KeyNotFoundError means that a key was never registered, has expired or was evicted.
type KeyNotFoundError struct{ KeyID string }

// Detail is the name of the detail.
func (*KeyNotFoundError) Detail() string { return "key_not_found" }
func (*KeyNotFoundError) Error() string {
	return "sealserve: the service has lost the key again and again: it has no room for it"
}

// ParameterSetNotOfferedError means that the model is not offered in this layout and parameter set.
type ParameterSetNotOfferedError struct{ Layout, ParameterSet string }

// Detail is the name of the detail.
func (*ParameterSetNotOfferedError) Detail() string { return "parameter_set_not_offered" }
func (e *ParameterSetNotOfferedError) Error() string {
	return fmt.Sprintf("sealserve: the model is not offered in layout %q with parameter set %q", e.Layout, e.ParameterSet)
}

// MalformedCiphertextError means that a ciphertext is none of the offered parameters.
type MalformedCiphertextError struct {
	Index int
	// Reason is the name of MalformedCiphertext.Reason in errors.proto, such as REASON_LENGTH.
	Reason string
}

// Detail is the name of the detail.
func (*MalformedCiphertextError) Detail() string { return "malformed_ciphertext" }
func (e *MalformedCiphertextError) Error() string {
	return fmt.Sprintf("sealserve: ciphertext %d is malformed: %s", e.Index, e.Reason)
}

// InputMismatchError means that a number in the request does not fit the model or the offer.
type InputMismatchError struct {
	Field              string
	Expected, Received uint64
}

// Detail is the name of the detail.
func (*InputMismatchError) Detail() string { return "input_mismatch" }
func (e *InputMismatchError) Error() string {
	return fmt.Sprintf("sealserve: %s is %d, expected %d", e.Field, e.Received, e.Expected)
}

// OutOfSequenceError means that a message of an item came out of order, twice or for no item.
type OutOfSequenceError struct{ Expected, Received uint64 }

// Detail is the name of the detail.
func (*OutOfSequenceError) Detail() string { return "out_of_sequence" }
func (e *OutOfSequenceError) Error() string {
	return fmt.Sprintf("sealserve: message out of sequence: expected %d, received %d", e.Expected, e.Received)
}

// LimitExceededError means that a message or a stream exceeds one of the model's limits.
type LimitExceededError struct {
	Limit             string
	Maximum, Received uint64
}

// Detail is the name of the detail.
func (*LimitExceededError) Detail() string { return "limit_exceeded" }
func (e *LimitExceededError) Error() string {
	return fmt.Sprintf("sealserve: %s is %d, the request has %d: send less at once", e.Limit, e.Maximum, e.Received)
}

// QuotaExceededError means that a quota is used up, or that the service has no capacity now.
type QuotaExceededError struct {
	Quota      string
	RetryDelay time.Duration
}

// Detail is the name of the detail.
func (*QuotaExceededError) Detail() string { return "quota_exceeded" }

// RetryAfter is how long to wait.
func (e *QuotaExceededError) RetryAfter() time.Duration { return e.RetryDelay }
func (e *QuotaExceededError) Error() string {
	return fmt.Sprintf("sealserve: quota %s is used up: retry in %v", e.Quota, e.RetryDelay)
}

// DrainingError means that the server is stopping.
type DrainingError struct{ RetryDelay time.Duration }

// Detail is the name of the detail.
func (*DrainingError) Detail() string { return "draining" }

// RetryAfter is how long to wait.
func (e *DrainingError) RetryAfter() time.Duration { return e.RetryDelay }
func (e *DrainingError) Error() string {
	return fmt.Sprintf("sealserve: the server is stopping: retry in %v", e.RetryDelay)
}

// ItemTimeoutError means that the rest of an item did not come in time.
type ItemTimeoutError struct{ Waited time.Duration }

// Detail is the name of the detail.
func (*ItemTimeoutError) Detail() string { return "item_timeout" }
func (e *ItemTimeoutError) Error() string {
	return fmt.Sprintf("sealserve: the rest of the request did not come within %v: send it again", e.Waited)
}

// InternalError means that the server failed. Its log has the cause under the request id.
type InternalError struct{ RequestID string }

// Detail is the name of the detail.
func (*InternalError) Detail() string { return "internal" }
func (e *InternalError) Error() string {
	return fmt.Sprintf("sealserve: the server failed: report request id %s", e.RequestID)
}

// KeyStoreUnavailableError means that the key store does not answer.
type KeyStoreUnavailableError struct{ RetryDelay time.Duration }

// Detail is the name of the detail.
func (*KeyStoreUnavailableError) Detail() string { return "key_store_unavailable" }

// RetryAfter is how long to wait.
func (e *KeyStoreUnavailableError) RetryAfter() time.Duration { return e.RetryDelay }
func (e *KeyStoreUnavailableError) Error() string {
	return fmt.Sprintf("sealserve: the key store does not answer: retry in %v", e.RetryDelay)
}

// MalformedKeyError means that the bytes of a key are not what its upload declares.
type MalformedKeyError struct {
	// Reason is the name of MalformedKey.Reason in errors.proto, such as REASON_LENGTH.
	Reason string
}

// Detail is the name of the detail.
func (*MalformedKeyError) Detail() string { return "malformed_key" }
func (e *MalformedKeyError) Error() string {
	return "sealserve: the key is malformed: " + e.Reason
}

// UnauthenticatedError means that the call has no valid credentials.
type UnauthenticatedError struct{}

// Detail is the name of the detail.
func (*UnauthenticatedError) Detail() string { return "unauthenticated" }
func (*UnauthenticatedError) Error() string {
	return "sealserve: the call has no valid credentials: send a valid token or client certificate"
}

// PermissionDeniedError means that the tenant may not make this call.
type PermissionDeniedError struct{ Permission string }

// Detail is the name of the detail.
func (*PermissionDeniedError) Detail() string { return "permission_denied" }
func (e *PermissionDeniedError) Error() string {
	return fmt.Sprintf("sealserve: the tenant lacks the permission %q: ask the operator for it", e.Permission)
}

// IdleTimeoutError means that the stream had no open item, and that no message came on it in time.
type IdleTimeoutError struct{ Waited time.Duration }

// Detail is the name of the detail.
func (*IdleTimeoutError) Detail() string { return "idle_timeout" }
func (e *IdleTimeoutError) Error() string {
	return fmt.Sprintf("sealserve: nothing came on the stream for %v: open another", e.Waited)
}

// ResourceUnavailableError means that the operating system gives the server no more of a resource.
type ResourceUnavailableError struct {
	Resource   string
	RetryDelay time.Duration
}

// Detail is the name of the detail.
func (*ResourceUnavailableError) Detail() string { return "resource_unavailable" }

// RetryAfter is how long to wait.
func (e *ResourceUnavailableError) RetryAfter() time.Duration { return e.RetryDelay }
func (e *ResourceUnavailableError) Error() string {
	return fmt.Sprintf("sealserve: the server has no more %s: retry in %v", e.Resource, e.RetryDelay)
}
