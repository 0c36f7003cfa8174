package gen

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wirepost/wirepost/scripts/load/wire"
)

// inFlight is how many connections may be on their way from connect to ready.
const inFlight = 256

// opening is the job Open.
type opening struct {
	upTo, had, dialled int
	began              time.Duration
}

func (g *Generator) open(c Command) {
	o := &opening{upTo: c.N, had: g.ready, dialled: g.ready, began: g.client.Now()}
	g.job = o
	o.more(g)
}

func (o *opening) message(uint32, []byte) {}
func (o *opening) woken()                 {}

// more dials when connections have become ready, and ends the job with the last one.
func (o *opening) more(g *Generator) {
	for ; o.dialled < min(o.upTo, g.ready+inFlight); o.dialled++ {
		g.client.Dial(0, uint32(o.dialled))
	}
	if g.ready == o.upTo {
		g.done(Result{Count: o.upTo - o.had, Took: g.client.Now() - o.began})
	}
}

// holding is the job Hold: pings, evenly spread over the connections and the time.
type holding struct {
	g        *Generator
	n, sent  int
	gap      time.Duration
	due, end time.Duration
	began    time.Duration
}

func (g *Generator) hold(c Command) {
	now := g.client.Now()
	h := &holding{g: g, n: c.N, gap: c.Every / time.Duration(max(c.N, 1)), began: now, due: now, end: now + c.For}
	g.job = h
	h.woken()
}

func (h *holding) message(uint32, []byte) {} // answers

func (h *holding) woken() {
	now := h.g.client.Now()
	for h.due <= now && h.due < h.end {
		if err := h.g.d.beat(h.g.conns[h.sent%h.n]); err != nil {
			h.g.fail(err)
			return
		}
		h.sent++
		h.due += h.gap
	}
	if h.due >= h.end && now >= h.end {
		h.g.done(Result{Count: h.sent, Took: now - h.began})
		return
	}
	h.g.client.WakeAt(min(h.due, h.end))
}

// raw is the job Raw: N sockets are connected, without a byte on them, then closed. It
// blocks the generator, which has nothing else to do.
func (g *Generator) raw(c Command) {
	t, err := wire.ParseTarget(g.opt.URL)
	if err != nil {
		g.fail(err)
		return
	}
	fds := make([]int, 0, c.N)
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	began := time.Now()
	for range c.N {
		fd, err := connectTo(t.Addr)
		if err != nil {
			g.fail(fmt.Errorf("connection %d: %w", len(fds), err))
			return
		}
		fds = append(fds, fd)
	}
	g.done(Result{Count: c.N, Took: time.Since(began)})
}

func connectTo(to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
