package process

import (
	"fmt"
	"io"
	"log/slog"
	"os"
)

// LogFormat is how log lines are written.
type LogFormat string

// The formats of a log.
const (
	LogAuto LogFormat = "auto" // text on a terminal, else JSON
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// UnmarshalText accepts the formats above.
func (f *LogFormat) UnmarshalText(text []byte) error {
	switch v := LogFormat(text); v {
	case LogAuto, LogText, LogJSON:
		*f = v
		return nil
	}
	return fmt.Errorf("must be auto, text or json")
}

// LogOptions are what a logger is made of, and a part of a binary's configuration.
type LogOptions struct {
	// Format: text, json, or auto, which is text on a terminal and JSON elsewhere. "" is auto.
	Format LogFormat `env:"LOG_FORMAT" envDefault:"auto"`
	// Level is the least that is written: debug, info, warn or error. Zero is info.
	Level slog.Level `env:"LOG_LEVEL" envDefault:"info"`
}

// NewLogger returns a logger that writes to w.
func NewLogger(w io.Writer, o LogOptions) *slog.Logger {
	h := &slog.HandlerOptions{Level: o.Level, ReplaceAttr: plainDuration}
	if o.Format == LogText || (o.Format != LogJSON && terminal(w)) {
		return slog.New(slog.NewTextHandler(w, h))
	}
	return slog.New(slog.NewJSONHandler(w, h))
}

// plainDuration writes 1.5s, which JSON would have as a number of nanoseconds.
func plainDuration(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
