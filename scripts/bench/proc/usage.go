package proc

import (
	"fmt"
	"time"

	"github.com/wirepost/wirepost/scripts/usage"
)

// Meter reads the CPU time of processes over a span.
type Meter struct {
	pids  []int
	start []time.Duration
	began time.Time
}

// NewMeter starts a span.
func NewMeter(all ...*Process) (*Meter, error) {
	m := &Meter{began: time.Now()}
	for _, p := range all {
		c, err := usage.CPU(p.PID)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		m.pids, m.start = append(m.pids, p.PID), append(m.start, c)
	}
	return m, nil
}

// Read returns what each process has used since the start, in their order, and how long
// ago that is.
func (m *Meter) Read() (used []time.Duration, span time.Duration, err error) {
	for i, pid := range m.pids {
		c, err := usage.CPU(pid)
		if err != nil {
			return nil, 0, err
		}
		used = append(used, c-m.start[i])
	}
	return used, time.Since(m.began), nil
}
