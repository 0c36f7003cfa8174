// Package userid holds the one type by which a user is named everywhere: on the
// WebSocket, in NATS subjects, in conversation ids and in the store.
//
// It never builds a subject (see package subject) and never talks to anything.
package userid

import (
	"errors"
	"unicode/utf8"
)

// MaxRawBytes is the longest raw user id, in bytes of UTF-8.
const MaxRawBytes = 128

var (
	// ErrEmpty is returned when the raw id has no byte.
	ErrEmpty = errors.New("user id is empty")
	// ErrTooLong is returned when the raw id is longer than MaxRawBytes.
	ErrTooLong = errors.New("user id is longer than 128 bytes")
	// ErrNotUTF8 is returned when the raw id is not valid UTF-8.
	ErrNotUTF8 = errors.New("user id is not valid UTF-8")
	// ErrNotCanonical is returned when a token is not what ID.Token returns for any raw id.
	ErrNotCanonical = errors.New("user token is not canonical")
)

// ID is a valid user id. It is comparable and holds the canonical form only:
// every byte outside [A-Za-z0-9_-] stands as "=XX" (upper-case hex). The form is
// injective, so two ids are equal exactly when their raw bytes are; it is one NATS
// subject token whatever the raw id holds ('*', '>', '.', '/', spaces), and it is
// safe as a part of a conversation id. The zero ID is no user.
type ID struct{ token string }

// Parse checks a raw id (1 to 128 bytes of valid UTF-8) and returns its ID.
func Parse(raw string) (ID, error) {
	switch {
	case raw == "":
		return ID{}, ErrEmpty
	case len(raw) > MaxRawBytes:
		return ID{}, ErrTooLong
	case !utf8.ValidString(raw):
		return ID{}, ErrNotUTF8
	}
	return ID{token: escape(raw)}, nil
}

// MustParse is Parse for constants in tests and tools. It panics on an invalid id.
func MustParse(raw string) ID {
	id, err := Parse(raw)
	if err != nil {
		panic(err)
	}
	return id
}

// FromToken returns the ID whose canonical form is token. It refuses every other
// spelling (lower-case hex, escaped plain bytes), so a subject names one user only.
func FromToken(token string) (ID, error) {
	raw, ok := unescape(token)
	if !ok {
		return ID{}, ErrNotCanonical
	}
	id, err := Parse(raw)
	if err != nil {
		return ID{}, err
	}
	if id.token != token {
		return ID{}, ErrNotCanonical
	}
	return ID{token: token}, nil
}

// Token returns the canonical form: one NATS subject token of at most 384 bytes.
func (id ID) Token() string { return id.token }

// Raw returns the id as the user spells it.
func (id ID) Raw() string {
	raw, _ := unescape(id.token)
	return raw
}

// IsZero reports whether id is the zero ID, which names nobody.
func (id ID) IsZero() bool { return id.token == "" }

// String returns the canonical form, which is safe to log.
func (id ID) String() string { return id.token }

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}

const upperHex = "0123456789ABCDEF"

func escape(raw string) string {
	extra := 0
	for i := range len(raw) {
		if !plain(raw[i]) {
			extra += 2
		}
	}
	if extra == 0 {
		return raw
	}
	b := make([]byte, 0, len(raw)+extra)
	for i := range len(raw) {
		if c := raw[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '=', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(b)
}

func unescape(token string) (raw string, ok bool) {
	i := 0
	for i < len(token) && plain(token[i]) {
		i++
	}
	if i == len(token) {
		return token, true
	}
	b := append(make([]byte, 0, len(token)), token[:i]...)
	for i < len(token) {
		c := token[i]
		if plain(c) {
			b = append(b, c)
			i++
			continue
		}
		if c != '=' || i+2 >= len(token) {
			return "", false
		}
		hi, lo := unhex(token[i+1]), unhex(token[i+2])
		if hi < 0 || lo < 0 {
			return "", false
		}
		b = append(b, byte(hi<<4|lo))
		i += 3
	}
	return string(b), true
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
