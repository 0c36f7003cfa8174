package loop

import "golang.org/x/sys/unix"

// Add watches a descriptor as if it had been accepted.
func (l *Loop[M]) Add(fd int) (Key, error) {
	l.load.Add(1)
	return l.add(fd)
}

// NoDelay returns TCP_NODELAY of a connection.
func (l *Loop[M]) NoDelay(k Key) (int, error) {
	s := l.lookup(k)
	if s == nil {
		return 0, ErrStale
	}
	return unix.GetsockoptInt(int(s.fd), unix.IPPROTO_TCP, unix.TCP_NODELAY)
}

// FirstKey returns the key of the connection in slot 0.
func (l *Loop[M]) FirstKey() Key { return Key(uint64(l.slots[0].gen) << 32) }
