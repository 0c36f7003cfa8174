package report

import (
	"io"
	"sync"
)

// Shared returns a writer that several goroutines may use: a Recorder prints its lines
// while others print theirs.
func Shared(w io.Writer) io.Writer { return &shared{w: w} }

type shared struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *shared) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}
