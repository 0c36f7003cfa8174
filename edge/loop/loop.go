package loop

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrStale is returned when a key names a connection that is closed.
	ErrStale = errors.New("connection is closed")
	// ErrStopped is returned when a loop was stopped before it ran.
	ErrStopped = errors.New("loop is stopped")
)

// Key names one connection of one Loop for as long as it is open. A key of a closed
// connection names nothing, also when its descriptor and its slot are used again. The
// zero Key is no connection.
type Key uint64 // generation (from 1) << 32 | slot

// Slot returns a small number that no other open connection of the loop has. Slots are
// dense and used again, so a handler keeps its connections in a slice indexed by them.
func (k Key) Slot() int { return int(uint32(k)) }

// Handler is what a Loop calls, always on the loop's goroutine; no method may block.
type Handler[M any] interface {
	// Accept takes over a new connection, which is already watched for reading. from is
	// the number of its listener, counted from 0 in the order of Listen.
	Accept(k Key, from int)
	// Readable is called while k has something to read and reading is wanted: bytes,
	// the end of the stream or an error; Read tells which.
	Readable(k Key)
	// Writable is called while k takes bytes again and writing is wanted.
	Writable(k Key)
	// Hangup is called when k is dead (reset, or closed on both sides) while reading
	// is not wanted. The handler must close k, or it is called again each turn.
	Hangup(k Key)
	// Message is called once for each posted M, in the order of Post.
	Message(m M)
	// Timeout is called once after the time given to Arm has passed.
	Timeout(k Key)
	// Tick is called once in each Config.Tick.
	Tick()
	// TurnEnd is called at the end of each turn that did something, and between
	// batches of messages: what was gathered in the turn is written now.
	TurnEnd()
	// AcceptFailed reports that accept4 failed for lack of descriptors or memory, or
	// with an unknown error. The loop pauses accepting for four ticks.
	AcceptFailed(err error)
}

// Config holds what can be set. The zero value is the default.
type Config struct {
	// Tick is how often Handler.Tick is called, and how exact Arm is; 0 is 250 ms.
	Tick time.Duration
	// Events is how many ready descriptors one poll takes; 0 is 256.
	Events int
}

const (
	defaultTick   = 250 * time.Millisecond
	defaultEvents = 256
	acceptBatch   = 16  // connections accepted in one turn, so that those already here get theirs
	messageBatch  = 256 // messages between two calls of TurnEnd
	acceptPause   = 4   // ticks without accepting after a lack of descriptors
	keepMailbox   = 4096
)

// What stands in epoll_event.data where a connection has its slot.
const (
	dataWake   int32 = -1
	dataTimer  int32 = -2
	dataListen int32 = -3 // the first listener; -4 the second, and so on
)

// Loop watches the descriptors of one goroutine, the one in Run. Post, Stop and
// StopAccepting may be called from anywhere; everything else belongs to the Handler's
// methods (or to the time before Run).
type Loop[M any] struct {
	table
	handler Handler[M]
	mail    mailbox[M]
	epfile  *os.File // of the epoll descriptor: parks in Go's poller
	events  []unix.EpollEvent
	ready   int // events of the last poll
	clock   clock

	listeners []int      // descriptors, in the order of Listen
	paused    int        // ticks until accepting goes on; 0: not paused
	peers     []*Loop[M] // that share the accepted connections, this one included; see Share

	stop   atomic.Bool
	refuse atomic.Bool // StopAccepting was called and not heard yet
}

// mailbox is the only part of a Loop that others touch.
type mailbox[M any] struct {
	wakefd   int
	sleeping atomic.Bool

	mu      sync.Mutex
	queue   []M        // guarded by mu
	adopted []accepted // guarded by mu: connections that other loops hand over
	closed  bool       // guarded by mu: wakefd is gone, messages are dropped
	spare   []M        // owned by the loop's goroutine: the queue of the turn before, empty
}

// New opens the descriptors of a loop. Run closes them at its end; Release does if it never runs.
func New[M any](h Handler[M], cfg Config) (*Loop[M], error) {
	if cfg.Tick <= 0 {
		cfg.Tick = defaultTick
	}
	if cfg.Events <= 0 {
		cfg.Events = defaultEvents
	}
	l := &Loop[M]{
		handler: h, clock: newClock(cfg.Tick),
		events: make([]unix.EpollEvent, cfg.Events),
	}
	l.mail.wakefd = -1
	l.table.init()
	if err := l.open(); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

func (l *Loop[M]) open() error {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("create epoll: %w", err)
	}
	l.table.epfd = epfd
	if err := unix.SetNonblock(epfd, true); err != nil {
		return fmt.Errorf("set epoll non-blocking: %w", err)
	}
	l.epfile = os.NewFile(uintptr(epfd), "epoll")
	if l.mail.wakefd, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return fmt.Errorf("create eventfd: %w", err)
	}
	if err := l.clock.open(); err != nil {
		return err
	}
	if err := l.watch(l.mail.wakefd, dataWake); err != nil {
		return err
	}
	return l.watch(l.clock.fd, dataTimer)
}

func (l *Loop[M]) watch(fd int, data int32) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: data}
	if err := unix.EpollCtl(l.table.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("watch descriptor: %w", err)
	}
	return nil
}

// Listen makes the loop accept connections of ln, before Run. It may be called more than
// once; loops that share connections must be given the same listeners in the same order.
// Several loops may share one listener: each takes a duplicate of its descriptor and shuts
// only that. The caller then closes ln: as long as it is open, Go's own poller is woken by
// each connection too.
func (l *Loop[M]) Listen(ln net.Listener) error {
	sc, ok := ln.(syscall.Conn)
	if !ok {
		return fmt.Errorf("listener %T has no descriptor", ln)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return fmt.Errorf("take listener: %w", err)
	}
	var dup int
	var duperr error
	if err := raw.Control(func(fd uintptr) {
		dup, duperr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return fmt.Errorf("take listener: %w", err)
	}
	if duperr != nil {
		return fmt.Errorf("duplicate listener: %w", duperr)
	}
	// Linux hands TCP_NODELAY of the listener on to what it accepts: one system call
	// here instead of one for each connection. A test holds it to that.
	_ = unix.SetsockoptInt(dup, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err := l.watch(dup, dataListen-int32(len(l.listeners))); err != nil {
		_ = unix.Close(dup)
		return err
	}
	l.listeners = append(l.listeners, dup)
	return nil
}

// Post hands m to Handler.Message. It never blocks, and wakes the loop only when that
// sleeps. Messages of one goroutine keep their order. After the loop's end m is dropped.
func (l *Loop[M]) Post(m M) {
	b := &l.mail
	b.mu.Lock()
	if !b.closed {
		b.queue = append(b.queue, m)
		if b.sleeping.Load() && b.sleeping.CompareAndSwap(true, false) {
			b.wake()
		}
	}
	b.mu.Unlock()
}

// wake is called with mu held, so that wakefd is open.
func (b *mailbox[M]) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(b.wakefd, one[:]) // EAGAIN: it is awake already
}

// Stop makes Run return soon; connections that are open then are closed without a word.
func (l *Loop[M]) Stop() { l.stop.Store(true); l.nudge() }

// StopAccepting makes the loop shut its listeners soon. When every loop has done so the
// kernel refuses new connections.
func (l *Loop[M]) StopAccepting() { l.refuse.Store(true); l.nudge() }

func (l *Loop[M]) nudge() {
	l.mail.mu.Lock()
	if !l.mail.closed {
		l.mail.sleeping.Store(false)
		l.mail.wake()
	}
	l.mail.mu.Unlock()
}

// Now returns the time since the loop was made, as of the start of this turn.
func (l *Loop[M]) Now() time.Duration { return l.clock.now }

// Run works until Stop. It must be called once, on a goroutine of its own.
func (l *Loop[M]) Run() error {
	defer l.release()
	if l.stop.Load() {
		return ErrStopped
	}
	raw, err := l.epfile.SyscallConn()
	if err != nil {
		return fmt.Errorf("park on epoll: %w", err)
	}
	poll := l.pollParked // bound once: a method value allocates
	for !l.stop.Load() {
		if err := l.poll(); err != nil {
			return err
		}
		if l.turn() {
			runtime.Gosched()
			continue
		}
		l.mail.sleeping.Store(true)
		if !l.mail.empty() || l.stop.Load() || l.refuse.Load() {
			l.mail.sleeping.Store(false)
			continue
		}
		if err := raw.Read(poll); err != nil {
			return fmt.Errorf("wait on epoll: %w", err)
		}
		l.mail.sleeping.Store(false)
		l.turn()
	}
	return nil
}

func (b *mailbox[M]) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue) == 0 && len(b.adopted) == 0
}

// turn works through what the last poll found and what was posted. It reports whether
// there was anything.
func (l *Loop[M]) turn() (busy bool) {
	l.clock.read()
	if l.refuse.CompareAndSwap(true, false) {
		l.shutListeners()
	}
	busy = l.ready > 0
	// Messages first: what was posted before a peer sent a byte is known when that byte
	// is read.
	if l.messages() {
		busy = true
	}
	for i := range l.events[:l.ready] {
		l.dispatch(&l.events[i])
	}
	l.ready = 0
	if busy {
		l.handler.TurnEnd()
	}
	return busy
}

func (l *Loop[M]) dispatch(ev *unix.EpollEvent) {
	switch {
	case ev.Fd >= 0:
		l.socketReady(Key(uint64(uint32(ev.Pad))<<32|uint64(uint32(ev.Fd))), ev.Events)
	case ev.Fd <= dataListen:
		l.accept(int(dataListen - ev.Fd))
	case ev.Fd == dataTimer:
		l.emptyCounter(l.clock.fd)
		l.tick()
	case ev.Fd == dataWake:
		l.emptyCounter(l.mail.wakefd)
	}
}

func (l *Loop[M]) emptyCounter(fd int) {
	var b [8]byte
	_, _ = unix.Read(fd, b[:])
}

// socketReady calls the handler for one ready socket. Each step looks the key up anew:
// an earlier step of this turn may have closed the connection, and its slot may hold
// another one by now.
func (l *Loop[M]) socketReady(k Key, events uint32) {
	s := l.lookup(k)
	if s == nil {
		return
	}
	const gone = unix.EPOLLERR | unix.EPOLLHUP
	switch {
	case s.want&wantRead != 0 && events&(unix.EPOLLIN|gone) != 0:
		l.handler.Readable(k)
	case events&gone != 0:
		l.handler.Hangup(k)
	}
	if events&unix.EPOLLOUT == 0 {
		return
	}
	if s = l.lookup(k); s != nil && s.want&wantWrite != 0 {
		l.handler.Writable(k)
	}
}

func (l *Loop[M]) messages() bool {
	b := &l.mail
	b.mu.Lock()
	q, adopted := b.queue, b.adopted
	b.queue, b.adopted = b.spare, nil
	b.mu.Unlock()
	for _, a := range adopted {
		l.take(a)
	}
	for i := range q {
		l.handler.Message(q[i])
		if i%messageBatch == messageBatch-1 {
			l.handler.TurnEnd()
		}
	}
	clear(q)
	if b.spare = q[:0]; cap(q) > keepMailbox {
		b.spare = nil // a burst is over: give its memory back
	}
	return len(q) > 0 || len(adopted) > 0
}

// tick turns the wheel up to now, and once in a Tick ends a pause in accepting.
func (l *Loop[M]) tick() {
	l.table.wheel.advance(l, l.clock.grains(l.clock.now))
	if !l.clock.ticks() {
		return
	}
	if l.paused > 0 {
		if l.paused--; l.paused == 0 {
			l.resumeAccept()
		}
	}
	l.handler.Tick()
}

// Release gives back what New and Listen opened, for a loop that never runs.
func (l *Loop[M]) Release() { l.release() }

// release closes everything that is open. The order matters: nobody posts to wakefd
// once closed is set.
func (l *Loop[M]) release() {
	l.mail.mu.Lock()
	for _, a := range l.mail.adopted {
		_ = unix.Close(int(a.fd))
	}
	l.mail.closed, l.mail.queue, l.mail.adopted = true, nil, nil
	if l.mail.wakefd >= 0 {
		_ = unix.Close(l.mail.wakefd)
	}
	l.mail.mu.Unlock()
	l.shutListeners()
	l.table.closeAll()
	l.clock.close()
	if l.epfile != nil {
		_ = l.epfile.Close()
	}
}
