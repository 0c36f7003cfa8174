// Package attempts limits how often a second somebody may try to connect, by address.
//
// It keeps a table of a fixed size, whoever comes: an IPv4 address has a row, and so has
// an IPv6 network of 64 bits, which is what one customer has at least. A client behind a
// NAT64 counts as its IPv4 address. When the rows are taken, who has come least often
// lately is forgotten: a flood from more addresses than there are rows is not limited, and
// nobody is ever refused for what another address did.
//
// It knows addresses and times alone: no connection, no proxy.
package attempts

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

const (
	// Burst is how many seconds' worth an address may try at once: an office whose network
	// comes back, a page that is opened in many tabs.
	Burst = 10

	// MaxRate is the highest rate, attempts a second.
	MaxRate = 1_000_000

	ways = 8       // rows that an address may have: two cache lines
	sets = 8 << 10 // 65,536 rows, 1 MiB
)

// row is an address and when all that it tried is paid for. Before that time it owes; a row
// that owes nothing is free.
type row struct {
	key  uint64
	paid time.Duration // on the table's clock
}

// Table counts attempts. Its methods may be called by any goroutine.
type Table struct {
	each  time.Duration // what one attempt costs
	most  time.Duration // what an address may owe
	start time.Time
	seed  maphash.Seed // nobody outside can tell who shares rows with whom

	mu   sync.Mutex
	rows [sets][ways]row // guarded by mu, which is held for a tenth of a microsecond
}

// New returns a table that allows perSecond attempts a second for each address, 1 to
// MaxRate, and Burst seconds' worth of them at once. It takes 1 MiB.
func New(perSecond int) *Table {
	return &Table{each: time.Second / time.Duration(perSecond), most: Burst * time.Second, start: time.Now(), seed: maphash.MakeSeed()}
}

// Allow notes an attempt and reports whether there may be one. One that is refused costs
// nothing: who comes too often is let in at the rate, not never. now is the present time.
func (t *Table) Allow(addr netip.Addr, now time.Time) bool {
	key := keyOf(addr)
	at := now.Sub(t.start)
	set := &t.rows[maphash.Comparable(t.seed, key)%sets]
	t.mu.Lock()
	defer t.mu.Unlock()
	r := find(set, key)
	owes := max(r.paid-at, 0)
	if r.key != key {
		r.key, owes = key, 0
	}
	if owes+t.each > t.most {
		return false
	}
	r.paid = at + owes + t.each
	return true
}

// find returns the row of key, or else the one that owes the least, to be taken.
func find(set *[ways]row, key uint64) *row {
	least := &set[0]
	for i := range set {
		r := &set[i]
		if r.key == key {
			return r
		}
		if r.paid < least.paid {
			least = r
		}
	}
	return least
}

// nat64 is the well-known prefix of RFC 6052: behind it stands a client's IPv4 address.
// Prefixes that a network chose for its own NAT64 cannot be told: their clients share a row.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// keyOf is an IPv4 address, or the first 64 bits of an IPv6 one. No client has an IPv6
// address that begins with 32 zeros.
func keyOf(addr netip.Addr) uint64 {
	b := addr.As16() // of an IPv4 address: its last 4 bytes are it
	if addr.Unmap().Is4() || nat64.Contains(addr) {
		return uint64(binary.BigEndian.Uint32(b[12:]))
	}
	return binary.BigEndian.Uint64(b[:8])
}
