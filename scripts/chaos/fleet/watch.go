package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	// portPatience is how long a start on a taken port is tried again.
	portPatience = 10 * time.Second
	portRetry    = 250 * time.Millisecond
	deathTail    = 4000 // bytes of a log that a Death holds
	// complaintLines is how many lines a Complaint holds.
	complaintLines = 30
)

// Death is the end of a process that no verb asked for.
type Death struct {
	Process *Process
	At      time.Time
	Exit    string // such as "exit status 2" or "signal: killed"
	Tail    string // of its log
}

func (d Death) String() string {
	return fmt.Sprintf("%s ended by itself (%s): %s", d.Process.Name, d.Exit, d.Tail)
}

// ended runs when a life is over.
func (p *Process) ended(l *life) {
	asked := l.asked.Load()
	again := !asked && p.portWasTaken(l)
	p.mu.Lock()
	p.spent += l.cmd.ProcessState.UserTime() + l.cmd.ProcessState.SystemTime()
	p.retrying = again
	p.mu.Unlock()
	close(l.gone)
	if again {
		time.Sleep(portRetry) // the one who has the port tells nobody when it is free
		if p.retry(l) {
			return
		}
	}
	if !asked {
		p.died(Death{Process: p, At: time.Now(), Exit: l.cmd.ProcessState.String(), Tail: p.Tail(deathTail)})
	}
}

// retry starts the process again, unless somebody else did. It reports whether all is well.
func (p *Process) retry(l *life) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retrying = false
	return p.closed || p.life != l || p.start() == nil
}

// portWasTaken reports whether a life ended early because its port was somebody else's.
func (p *Process) portWasTaken(l *life) bool {
	b, err := readFrom(p.Log, l.logFrom)
	return err == nil && time.Since(l.started) < portPatience && bytes.Contains(b, []byte("ddress already in use"))
}

// Tail returns the last n bytes of the process's log.
func (p *Process) Tail(n int64) string {
	fi, err := os.Stat(p.Log)
	if err != nil {
		return err.Error()
	}
	b, err := readFrom(p.Log, max(0, fi.Size()-n))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func readFrom(file string, offset int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

// Deaths returns every process that ended without being asked to, oldest first.
func (f *Fleet) Deaths() []Death {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.deaths)
}

func (f *Fleet) note(d Death) {
	f.mu.Lock()
	f.deaths = append(f.deaths, d)
	f.mu.Unlock()
	if f.spec.OnDeath != nil {
		f.spec.OnDeath(d)
	}
}

// Complaint is a data race, a panic, or a fatal error in the log of an edge or a worker.
type Complaint struct {
	Process *Process
	Text    string // the line, and what follows it
}

// Complaints returns what the logs of edges and workers hold, all lives of them.
func (f *Fleet) Complaints() ([]Complaint, error) {
	var all []Complaint
	for _, p := range append(f.Edges(), f.everyWorker()...) {
		b, err := readFrom(p.Log, 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // it was never started
			return nil, fmt.Errorf("log of %s: %w", p.Name, err)
		}
		for _, text := range complaints(string(b)) {
			all = append(all, Complaint{p, text})
		}
	}
	return all, nil
}

// complaints finds the places in a log. What a place shows is not looked into again: a
// panic in the middle of a report is a part of it.
func complaints(log string) []string {
	var found []string
	lines := strings.Split(log, "\n")
	for i := 0; i < len(lines); i++ {
		if !complains(lines[i]) {
			continue
		}
		end := min(len(lines), i+complaintLines)
		found = append(found, strings.Join(lines[i:end], "\n"))
		i = end - 1
	}
	return found
}

func complains(line string) bool {
	return strings.Contains(line, "WARNING: DATA RACE") || strings.Contains(line, "panic:") || strings.Contains(line, "panicked") || strings.HasPrefix(line, "fatal error:")
}
