package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const panics = "WIREPOST_TEST_PANICS"

func TestMain(m *testing.M) {
	if os.Getenv(panics) != "" {
		panic("as told")
	}
	goleak.VerifyTestMain(m)
}

// A panic must not look like a wrong configuration, after which systemd starts nothing again.
func TestPanicIsNoConfiguration(t *testing.T) {
	self := exec.Command(os.Args[0])
	self.Env = append(os.Environ(), panics+"=1")
	err := self.Run()
	if ended := (*exec.ExitError)(nil); !errors.As(err, &ended) || ended.ExitCode() == ExitConfig {
		t.Errorf("a process that panics: %v; ExitConfig is %d", err, ExitConfig)
	}
}

func program(load error, run func(context.Context) error) Program[int] {
	return Program[int]{
		Name: "prog",
		Load: func() (int, error) { return 7, load },
		Log:  func(int) LogOptions { return LogOptions{Format: LogText} },
		Run: func(ctx context.Context, cfg int, _ *slog.Logger) error {
			if cfg != 7 {
				return fmt.Errorf("cfg = %d", cfg)
			}
			return run(ctx)
		},
	}
}

func TestMainExitCodes(t *testing.T) {
	fine := func(context.Context) error { return nil }
	two := fmt.Errorf("config: %w", errors.Join(&ConfigError{"LANES", "must be\n1 or more"}, &ConfigError{"LISTEN", "is odd"}))
	for _, c := range []struct {
		name     string
		args     []string
		load     error
		run      func(context.Context) error
		code     int
		out, err string // what must be there
	}{
		{"runs", nil, nil, fine, ExitOK, "", "msg=stopped"},
		{"fails", nil, nil, func(context.Context) error { return errors.New("boom") }, ExitFailed, "", "err=boom"},
		{"canceled without a signal is a failure", nil, nil, func(context.Context) error { return context.Canceled }, ExitFailed, "", "msg=failed"},
		{"wrong variable", nil, &ConfigError{"LANES", "must be 1 or more"}, fine, ExitConfig, "", "prog: configuration: LANES: must be 1 or more\n"},
		{"two wrong variables", nil, two, fine, ExitConfig, "", "prog: configuration: LANES: must be 1 or more\nprog: configuration: LISTEN: is odd\n"},
		{"version", []string{"-version"}, errors.New("not loaded"), fine, ExitOK, "prog dev (", ""},
		{"help", []string{"-h"}, errors.New("not loaded"), fine, ExitOK, "", "environment variables"},
		{"unknown flag", []string{"-x"}, nil, fine, ExitConfig, "", "-x"},
		{"argument", []string{"x"}, nil, fine, ExitConfig, "", `unexpected argument "x"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := program(c.load, c.run).main(c.args, &out, &errs, nil, nil)
			if code != c.code || !strings.Contains(out.String(), c.out) || !strings.Contains(errs.String(), c.err) {
				t.Errorf("code %d, stdout %q, stderr %q", code, &out, &errs)
			}
			if c.code == ExitConfig && c.load != nil && strings.Count(errs.String(), "\n") != len(configLines(c.load)) {
				t.Errorf("more than the lines that name variables: %q", &errs)
			}
		})
	}
}

func TestSignals(t *testing.T) {
	t.Run("the first is graceful", func(t *testing.T) {
		signals := make(chan os.Signal, 2)
		signals <- syscall.SIGTERM
		code := program(nil, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}).main(nil, &bytes.Buffer{}, &bytes.Buffer{}, signals, nil)
		if code != ExitOK {
			t.Errorf("code %d", code)
		}
	})
	t.Run("the second exits at once", func(t *testing.T) {
		signals := make(chan os.Signal, 2)
		exited := make(chan int, 1)
		signals <- syscall.SIGTERM
		signals <- os.Interrupt
		program(nil, func(ctx context.Context) error {
			if code := <-exited; code != 130 { // a stop that hangs; the real os.Exit does not return
				t.Errorf("exit code %d", code)
			}
			return nil
		}).main(nil, &bytes.Buffer{}, &bytes.Buffer{}, signals, func(code int) { exited <- code })
	})
}

func TestStackOrderAndErrors(t *testing.T) {
	var s Stack
	var order []string
	boom := errors.New("boom")
	s.Push("first", time.Minute, func(context.Context) error { order = append(order, "first"); return nil })
	s.Push("second", time.Minute, func(context.Context) error { order = append(order, "second"); return boom })
	s.Push("third", time.Minute, func(context.Context) error { order = append(order, "third"); panic("oh") })
	err := s.Drain(context.Background())
	if got := strings.Join(order, " "); got != "third second first" {
		t.Errorf("order %q", got)
	}
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), "stop second: boom") || !strings.Contains(err.Error(), "stop third: panic: oh") {
		t.Errorf("error %v", err)
	}
	if err := s.Drain(context.Background()); err != nil {
		t.Errorf("an empty stack: %v", err)
	}
}

func TestStackIsBounded(t *testing.T) {
	var s Stack
	release, left := make(chan struct{}), make(chan struct{})
	stopped := false
	s.Push("next", time.Minute, func(context.Context) error { stopped = true; return nil })
	s.Push("stuck", time.Millisecond, func(context.Context) error { defer close(left); <-release; return nil })
	s.Push("slow", time.Millisecond, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	err := s.Drain(context.Background())
	if !errors.Is(err, ErrStuck) || !errors.Is(err, context.DeadlineExceeded) || !stopped {
		t.Errorf("error %v, next stopped %v", err, stopped)
	}
	close(release)
	<-left
}

func TestStackCutsWhenTheContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var s Stack
	s.Push("drain", time.Hour, func(ctx context.Context) error { <-ctx.Done(); return nil })
	if err := s.Drain(ctx); err != nil {
		t.Error(err)
	}
}

func TestLogger(t *testing.T) {
	var b bytes.Buffer
	NewLogger(&b, LogOptions{}).Info("hello", "secret", Secret("s3cret"), "took", 1500*time.Millisecond)
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil || line["msg"] != "hello" || line["took"] != "1.5s" {
		t.Errorf("no terminal means JSON: %v in %q", err, &b)
	}
	b.Reset()
	log := NewLogger(&b, LogOptions{Format: LogText, Level: slog.LevelWarn})
	log.Info("quiet")
	log.Warn("loud", "a", Secret("s3cret"))
	log.Warn(fmt.Sprintf("%v %+v %#v %s %q", Secret("s3cret"), struct{ S Secret }{"s3cret"}, struct{ S Secret }{"s3cret"}, Secret("s3cret"), Secret("s3cret")))
	if got := b.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "msg=loud") || strings.Contains(got, "s3cret") {
		t.Errorf("%q", got)
	}
	if j, err := json.Marshal(Secret("s3cret")); err != nil || strings.Contains(string(j), "s3cret") {
		t.Errorf("%s, %v", j, err)
	}
	var f LogFormat
	if f.UnmarshalText([]byte("xml")) == nil || f.UnmarshalText([]byte("json")) != nil || f != LogJSON {
		t.Errorf("format %q", f)
	}
}
