package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wirepost/wirepost/scripts/attacks/army"
)

// The attacker is told on its standard input "attack" or "rest <share of a core>", and
// answers, when the next word comes, with the processor seconds that it has used since.

// attacker is the process that attacks. It ends with its input.
func attacker(ctx context.Context, a *army.Attack, to netip.AddrPort) error {
	words := make(chan string)
	go func() {
		defer close(words)
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			words <- lines.Text()
		}
	}()
	word, ok := <-words
	for ok {
		before, err := used()
		if err != nil {
			return err
		}
		part, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			obey(part, word, a, to)
		}()
		word, ok = <-words
		stop()
		<-done
		after, err := used()
		if err != nil {
			return err
		}
		fmt.Println((after - before).Seconds())
	}
	return nil
}

// obey does what a word says until ctx ends.
func obey(ctx context.Context, word string, a *army.Attack, to netip.AddrPort) {
	share, rest := strings.CutPrefix(word, "rest ")
	if !rest {
		army.New(a, to).Run(ctx)
		return
	}
	f, _ := strconv.ParseFloat(share, 64) // of our own making
	burn(ctx, f)
}

func used() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// burn uses a share of one core, in the rhythm of an army.
func burn(ctx context.Context, share float64) {
	const grain = 5 * time.Millisecond
	tick := time.NewTicker(grain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for over := time.Now().Add(time.Duration(share * float64(grain))); time.Now().Before(over); {
		}
	}
}

// enemy is the attacker as its commander sees it.
type enemy struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Scanner
	began time.Time
}

func hire(a *army.Attack, addr string) (*enemy, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	e := &enemy{cmd: exec.Command(self, "-attacker", a.Name, "-addr", addr)}
	e.cmd.Stderr = os.Stderr
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if e.in, err = e.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	e.out = bufio.NewScanner(out)
	return e, e.cmd.Start()
}

// tell gives an order and returns the share of a core that the one before has cost.
func (e *enemy) tell(order string) (share float64, err error) {
	if _, err := fmt.Fprintln(e.in, order); err != nil {
		return 0, err
	}
	began := e.began
	e.began = time.Now()
	if began.IsZero() {
		return 0, nil
	}
	if !e.out.Scan() {
		return 0, fmt.Errorf("the attacker is gone: %w", e.out.Err())
	}
	cpu, err := strconv.ParseFloat(e.out.Text(), 64)
	return cpu / e.began.Sub(began).Seconds(), err
}

func (e *enemy) dismiss() {
	_ = e.in.Close()
	_ = e.cmd.Process.Kill()
	_ = e.cmd.Wait()
}
