package process

import (
	"errors"
	"log/slog"
	"strings"
)

// ConfigError says what is wrong with one variable. Problem never holds a secret.
type ConfigError struct {
	Variable string // as in the environment
	Problem  string // "must be …, is …"
}

func (e *ConfigError) Error() string { return e.Variable + ": " + e.Problem }

// configLines returns one line for each error that err joins.
func configLines(err error) []string {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return []string{strings.Join(strings.Fields(err.Error()), " ")}
	}
	var lines []string
	for _, e := range joined.Unwrap() {
		lines = append(lines, configLines(e)...)
	}
	return lines
}

// Secret is a configuration value that no log and no %v shows.
type Secret string

const hidden = "[hidden]"

// String returns a placeholder.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString returns a placeholder.
func (s Secret) GoString() string { return s.String() }

// LogValue returns a placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns a placeholder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal returns the value.
func (s Secret) Reveal() string { return string(s) }
