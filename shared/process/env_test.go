package process

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// sample has two fields of one name, of which each has its own variable.
type sample struct {
	Name string `env:"NAME"`
	Up   struct {
		Rate   int           `env:"UP_RATE" envDefault:"8"`
		Within time.Duration `env:"UP_WITHIN" envDefault:"5s"`
	}
	Down struct {
		Rate   int    `env:"DOWN_RATE" envDefault:"4"`
		Within bool   `env:"DOWN_WITHIN"`
		Secret Secret `env:"DOWN_SECRET"`
	}
	List []string `env:"LIST" envSeparator:","`
	Log  LogOptions
	Made []int `env:"-"`
}

func (s *sample) check(c *Checks) {
	c.Between("UP_RATE", int64(s.Up.Rate), 1, 100)
	c.Between("DOWN_RATE", int64(s.Down.Rate), 1, 100)
	s.Made = []int{s.Up.Rate, s.Down.Rate}
}

func TestLoadEnv(t *testing.T) {
	cfg, err := LoadEnv(map[string]string{"NAME": "n", "UP_RATE": "9", "DOWN_RATE": "", "LIST": "a,b", "LOG_LEVEL": "warn", "DOWN_SECRET": "hunter2"}, (*sample).check)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Name != "n" || cfg.Up.Rate != 9 || cfg.Down.Rate != 4 || cfg.Up.Within != 5*time.Second || cfg.Down.Secret.Reveal() != "hunter2" ||
		strings.Join(cfg.List, "+") != "a+b" || cfg.Log != (LogOptions{LogAuto, slog.LevelWarn}) || len(cfg.Made) != 2 {
		t.Errorf("%+v", cfg)
	}
	t.Setenv("UP_RATE", "7")
	if cfg, err := LoadEnv(nil, (*sample).check); err != nil || cfg.Up.Rate != 7 {
		t.Errorf("of the process: %+v, %v", cfg, err)
	}
}

// Each value that is wrong is told under its own variable, whatever its field is called.
func TestLoadEnvTellsVariables(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"UP_RATE=x", `UP_RATE: must be a whole number, is "x"`},
		{"DOWN_RATE=y", `DOWN_RATE: must be a whole number, is "y"`},
		{"UP_WITHIN=soon", `UP_WITHIN: must be a duration such as 500ms, 25s or 10m, is "soon"`},
		{"DOWN_WITHIN=often", `DOWN_WITHIN: must be true or false, is "often"`},
		{"LOG_FORMAT=xml", `LOG_FORMAT: must be auto, text or json, is "xml"`},
		{"UP_RATE=x DOWN_RATE=y LOG_LEVEL=loud", "UP_RATE: must be a whole number, is \"x\"\nDOWN_RATE: must be a whole number, is \"y\"\n" +
			"LOG_LEVEL: must be debug, info, warn or error, is \"loud\""},
		{"UP_RATE=200 DOWN_RATE=300", "UP_RATE: must be from 1 to 100, is 200\nDOWN_RATE: must be from 1 to 100, is 300"},
	} {
		environ := map[string]string{}
		for one := range strings.FieldsSeq(c.set) {
			name, value, _ := strings.Cut(one, "=")
			environ[name] = value
		}
		cfg, err := LoadEnv(environ, (*sample).check)
		var problem *ConfigError
		if err == nil || err.Error() != c.want || !errors.As(err, &problem) || cfg.Made != nil {
			t.Errorf("%s: %v, want %s", c.set, err, c.want)
		}
	}
}

func TestNewName(t *testing.T) {
	for host, want := range map[string]string{"edge-1.example.com": "edge-1-example-com-abc", "": "-abc", strings.Repeat("x", 100): strings.Repeat("x", 60) + "-abc"} {
		if got := nameFrom(host, "abc"); got != want {
			t.Errorf("%q: %q", host, got)
		}
	}
	var c Checks
	one, other := NewName(), NewName()
	if c.Name("NAME", one); c.Err() != nil || one == other {
		t.Errorf("%q and %q: %v", one, other, c.Err())
	}
}

// A tag that nothing can be made of is the programmer's error; it must not be silent.
func TestLoadEnvTellsWrongTags(t *testing.T) {
	_, err := LoadEnv(nil, func(*struct {
		N int `env:"N,whatever"`
	}, *Checks) {
	})
	if err == nil || !strings.HasPrefix(err.Error(), "N: ") {
		t.Errorf("%v", err)
	}
}
