package auth

import "github.com/wirepost/wirepost/shared/protocol"

// Refusal says why a token is not accepted and with which close code the connection
// ends. Refusals are the variables below and no others, so they can be compared.
type Refusal struct {
	Close  int    // protocol.CloseTokenExpired: a new token may help; protocol.CloseTokenRefused: stop
	Reason string // a plain sentence that holds nothing of the token; fits a close frame (≤ 123 bytes)
	label  string // of the counter
}

func (r *Refusal) Error() string { return r.Reason }

// The refusals that a new token, or a later attempt, can cure.
var (
	// ErrExpired is returned when exp has passed.
	ErrExpired = &Refusal{protocol.CloseTokenExpired, "token expired", "expired"}
	// ErrNotYet is returned when nbf is more than 5 seconds ahead.
	ErrNotYet = &Refusal{protocol.CloseTokenExpired, "token is not valid yet", "not_yet"}
	// ErrKeysUnavailable is returned when the JWKS has never been fetched.
	ErrKeysUnavailable = &Refusal{protocol.CloseTokenExpired, "token keys are not available", "keys_unavailable"}
	// ErrUnknownKey is returned when the JWKS holds no key of the token's kid.
	ErrUnknownKey = &Refusal{protocol.CloseTokenExpired, "token is signed by an unknown key", "unknown_key"}
)

// The refusals that are final.
var (
	// ErrMalformed is returned when the token is empty, longer than MaxTokenBytes or no
	// JWT, or a claim that is read has a wrong type or comes twice.
	ErrMalformed = &Refusal{protocol.CloseTokenRefused, "token is malformed", "malformed"}
	// ErrAlgorithm is returned when no key is configured for the token's algorithm.
	ErrAlgorithm = &Refusal{protocol.CloseTokenRefused, "token algorithm is not accepted", "algorithm"}
	// ErrSignature is returned when the signature does not hold.
	ErrSignature = &Refusal{protocol.CloseTokenRefused, "token signature is wrong", "signature"}
	// ErrIssuer is returned when iss is not the configured one.
	ErrIssuer = &Refusal{protocol.CloseTokenRefused, "token is from another issuer", "issuer"}
	// ErrAudience is returned when aud does not hold the configured one.
	ErrAudience = &Refusal{protocol.CloseTokenRefused, "token is for another audience", "audience"}
	// ErrSubject is returned when sub is no user id, or holds U+FFFD.
	ErrSubject = &Refusal{protocol.CloseTokenRefused, "token subject is no user id", "subject"}
	// ErrNoExpiry is returned when there is no exp.
	ErrNoExpiry = &Refusal{protocol.CloseTokenRefused, "token has no expiry", "no_expiry"}
)

// refusals is the closed set, for the counters.
var refusals = []*Refusal{
	ErrExpired, ErrNotYet, ErrKeysUnavailable, ErrUnknownKey,
	ErrMalformed, ErrAlgorithm, ErrSignature, ErrIssuer, ErrAudience, ErrSubject, ErrNoExpiry,
}
