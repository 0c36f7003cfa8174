package process

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Checks collects what is wrong with a configuration. The zero Checks is ready for use.
type Checks struct{ errs []error }

// Add records a problem of a variable. The text must hold no secret.
func (c *Checks) Add(variable, format string, args ...any) {
	c.errs = append(c.errs, &ConfigError{variable, fmt.Sprintf(format, args...)})
}

// Err returns all problems joined, nil when there is none.
func (c *Checks) Err() error { return errors.Join(c.errs...) }

// Unparsed records that a value is not of the field's type. why is shown for types with
// an UnmarshalText of their own.
func (c *Checks) Unparsed(variable, value string, field reflect.Type, why error) {
	switch {
	case field == reflect.TypeFor[time.Duration]():
		c.Add(variable, "must be a duration such as 500ms, 25s or 10m, is %q", value)
	case field == reflect.TypeFor[slog.Level]():
		c.Add(variable, "must be debug, info, warn or error, is %q", value)
	case field.Kind() == reflect.Int || field.Kind() == reflect.Int64:
		c.Add(variable, "must be a whole number, is %q", value)
	case field.Kind() == reflect.Bool:
		c.Add(variable, "must be true or false, is %q", value)
	default:
		c.Add(variable, "%v, is %q", why, value)
	}
}

// Between records a number outside of [least, most].
func (c *Checks) Between(variable string, value, least, most int64) {
	if value < least || most < value {
		c.Add(variable, "must be from %d to %d, is %d", least, most, value)
	}
}

// Lasts records a duration outside of [least, most].
func (c *Checks) Lasts(variable string, value, least, most time.Duration) {
	if value < least || most < value {
		c.Add(variable, "must be from %v to %v, is %v", least, most, value)
	}
}

// Address records what is no address to listen on: host:port, or :port for all
// interfaces.
func (c *Checks) Address(variable, value string) {
	_, port, err := net.SplitHostPort(value)
	n, convErr := strconv.Atoi(port)
	if err != nil || convErr != nil || n < 0 || 65535 < n {
		c.Add(variable, "must be an address such as :8080 or 127.0.0.1:8080, is %q", value)
	}
}

// MaxName is the length of the longest Name, in bytes.
const MaxName = 64

// Name records what is no plain token of 1 to MaxName bytes.
func (c *Checks) Name(variable, value string) {
	if value == "" || len(value) > MaxName || strings.ContainsFunc(value, notPlain) {
		c.Add(variable, "must be 1 to %d letters, digits, _ or -, is %q", MaxName, value)
	}
}

// URLs records a list, separated by commas, in which something is no URL with a host
// and one of the schemes. It never shows the value, which may hold credentials.
func (c *Checks) URLs(variable, value, example string, schemes ...string) {
	for one := range strings.SplitSeq(value, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme) {
			c.Add(variable, "must be a URL such as %s", example)
			return
		}
	}
}

// File records a file that is named and cannot be read.
func (c *Checks) File(variable, name string) {
	if name == "" {
		return
	}
	f, err := os.Open(name)
	if err != nil {
		c.Add(variable, "must be a readable file: %v", err)
		return
	}
	_ = f.Close()
}

// nameFrom returns the host's name as far as it is plain, and suffix behind it.
func nameFrom(host, suffix string) string {
	host = strings.Map(func(r rune) rune {
		if notPlain(r) {
			return '-'
		}
		return r
	}, host)
	if most := MaxName - len(suffix) - 1; len(host) > most {
		host = host[:most]
	}
	return host + "-" + suffix
}

func notPlain(r rune) bool {
	return (r < 'a' || 'z' < r) && (r < 'A' || 'Z' < r) && (r < '0' || '9' < r) && r != '_' && r != '-'
}
