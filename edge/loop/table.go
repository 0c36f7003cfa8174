package loop

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	wantRead uint8 = 1 << iota
	wantWrite
)

// slot is what a loop keeps for one connection: 24 bytes without a pointer.
type slot struct {
	fd   int32  // -1: free
	gen  uint32 // of the Key; counts up at each use of the slot
	want uint8
	link // of the wheel; next also chains free slots
}

// table holds a loop's connections, dense, indexed by slot.
type table struct {
	epfd  int
	slots []slot
	free  int32        // first free slot, noSlot if none
	load  atomic.Int64 // open connections, those that are on their way here included
	wheel wheel
}

const noSlot int32 = -1

func (t *table) init() {
	t.epfd, t.free = -1, noSlot
	t.wheel.init(t)
}

// lookup returns the slot of an open connection, nil for a stale key. The pointer is
// valid until the next connection is added.
func (t *table) lookup(k Key) *slot {
	i := uint64(uint32(k))
	if i >= uint64(len(t.slots)) {
		return nil
	}
	s := &t.slots[i]
	if s.gen != uint32(k>>32) || s.fd < 0 {
		return nil
	}
	return s
}

func (t *table) add(fd int) (Key, error) {
	i := t.free
	if i != noSlot {
		t.free = t.slots[i].next
	} else {
		i = int32(len(t.slots))
		t.slots = append(t.slots, slot{})
	}
	s := &t.slots[i]
	s.fd, s.want = int32(fd), wantRead
	if s.gen++; s.gen == 0 {
		s.gen = 1
	}
	s.link = unlinked
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: i, Pad: int32(s.gen)}
	if err := unix.EpollCtl(t.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		s.fd, s.next, t.free = -1, t.free, i
		return 0, fmt.Errorf("watch connection: %w", err)
	}
	return Key(uint64(s.gen)<<32 | uint64(uint32(i))), nil
}

// Want says which readiness the handler is told of from now on. It costs a system call
// only when something changes. A stale key is ignored.
func (t *table) Want(k Key, read, write bool) {
	s := t.lookup(k)
	if s == nil {
		return
	}
	var want uint8
	var events uint32
	if read {
		want, events = want|wantRead, events|unix.EPOLLIN
	}
	if write {
		want, events = want|wantWrite, events|unix.EPOLLOUT
	}
	if s.want == want {
		return
	}
	s.want = want
	ev := unix.EpollEvent{Events: events, Fd: int32(k.Slot()), Pad: int32(s.gen)}
	_ = unix.EpollCtl(t.epfd, unix.EPOLL_CTL_MOD, int(s.fd), &ev) // fails only for a descriptor that is not watched
}

// Read reads once into b and never waits: unix.EAGAIN says that nothing is there, 0
// without an error that the peer will send no more. ErrStale for a stale key.
func (t *table) Read(k Key, b []byte) (int, error) {
	s := t.lookup(k)
	if s == nil {
		return 0, ErrStale
	}
	return transfer(unix.SYS_READ, s.fd, b)
}

// Write writes once from b and never waits: fewer bytes than len(b), or unix.EAGAIN,
// say that the kernel takes no more now. ErrStale for a stale key.
func (t *table) Write(k Key, b []byte) (int, error) {
	s := t.lookup(k)
	if s == nil {
		return 0, ErrStale
	}
	return transfer(unix.SYS_WRITE, s.fd, b) // SIGPIPE does no harm: Go ignores it for descriptors other than 1 and 2
}

// transfer is one read or write that never waits, as a raw system call: the scheduler
// need not be told. If it is, the first call after a moment of rest wakes its monitor
// thread, a futex each time; at 5,000 messages/s that was half of an echo's CPU time. A
// raw call keeps its P until the bytes are copied, at most what the socket's buffer holds.
func transfer(call uintptr, fd int32, b []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}

// ShutdownWrite tells the peer that nothing more comes; reading goes on.
func (t *table) ShutdownWrite(k Key) {
	if s := t.lookup(k); s != nil {
		_ = unix.Shutdown(int(s.fd), unix.SHUT_WR)
	}
}

// Close closes the connection and forgets its key. A stale key is ignored.
func (t *table) Close(k Key) {
	s := t.lookup(k)
	if s == nil {
		return
	}
	t.wheel.remove(int32(k.Slot()))
	_ = unix.Close(int(s.fd)) // ends the watch too: nobody else holds this open file
	s.fd, s.want = -1, 0
	s.next, t.free = t.free, int32(k.Slot())
	t.load.Add(-1)
}

func (t *table) closeAll() {
	for i := range t.slots {
		if t.slots[i].fd >= 0 {
			_ = unix.Close(int(t.slots[i].fd))
			t.slots[i].fd = -1
		}
	}
	t.slots, t.free = nil, noSlot
}

// PeerAddr returns the address of the peer, the zero AddrPort if it is not known.
func (t *table) PeerAddr(k Key) netip.AddrPort {
	s := t.lookup(k)
	if s == nil {
		return netip.AddrPort{}
	}
	sa, err := unix.Getpeername(int(s.fd))
	if err != nil {
		return netip.AddrPort{}
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// Arm sets the connection's one timer: Handler.Timeout is called when at least d has
// passed, and at most about two Ticks later. An earlier setting is forgotten.
func (l *Loop[M]) Arm(k Key, d time.Duration) { l.arm(k, l.clock.now+max(d, 0)) }

// ArmExact is Arm, but at most about 40 ms late. Until then the loop wakes up every 20 ms.
func (l *Loop[M]) ArmExact(k Key, d time.Duration) {
	due := l.clock.now + max(d, 0)
	l.arm(k, due)
	l.clock.hurry(due)
}

func (l *Loop[M]) arm(k Key, due time.Duration) {
	if l.lookup(k) == nil {
		return
	}
	l.table.wheel.remove(int32(k.Slot()))
	l.table.wheel.insert(int32(k.Slot()), l.clock.grains(due)+1)
}
