package process

import (
	"crypto/rand"
	"errors"
	"maps"
	"os"
	"reflect"
	"strings"

	"github.com/caarlos0/env/v11"
)

// LoadEnv reads a configuration, a struct whose fields have env tags, from environ, or from
// the process's environment when environ is nil. An empty variable counts as one that is
// not set. check fills in what is made of other values and records what is wrong; it is not
// called while a value cannot be parsed. The error joins a ConfigError for each problem.
func LoadEnv[C any](environ map[string]string, check func(*C, *Checks)) (C, error) {
	if environ == nil {
		environ = env.ToMap(os.Environ())
	}
	environ = maps.Clone(environ)
	maps.DeleteFunc(environ, func(_, v string) bool { return v == "" })

	var cfg, none C
	var c Checks
	fill(reflect.ValueOf(&cfg).Elem(), environ, &c)
	if err := c.Err(); err != nil {
		return none, err
	}
	check(&cfg, &c)
	if err := c.Err(); err != nil {
		return none, err
	}
	return cfg, nil
}

// fill parses the fields of a struct, and of those within it, each for itself: an error of
// env names a field, of which there may be more of that name, and not its variable.
func fill(v reflect.Value, environ map[string]string, c *Checks) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		variable, _, _ := strings.Cut(f.Tag.Get("env"), ",")
		if variable == "" && f.Type.Kind() == reflect.Struct {
			fill(v.Field(i), environ, c)
		}
		if variable == "" || variable == "-" {
			continue
		}
		one := reflect.New(reflect.StructOf([]reflect.StructField{f}))
		err := env.ParseWithOptions(one.Interface(), env.Options{Environment: environ})
		var wrong env.ParseError
		switch {
		case err == nil:
			v.Field(i).Set(one.Elem().Field(0))
		case errors.As(err, &wrong):
			c.Unparsed(variable, environ[variable], wrong.Type, wrong.Err)
		default:
			c.Add(variable, "%v", err)
		}
	}
}

// NewName returns a name for this process that no other one has: the host's name as far as
// it is plain, and a random suffix.
func NewName() string {
	host, _ := os.Hostname() // without one the suffix is enough
	return nameFrom(host, strings.ToLower(rand.Text()[:6]))
}
