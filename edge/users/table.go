// Package users is the table from a user to the receivers (sockets) of that user on
// this edge, as one goroutine of the downlink owns it.
//
// It knows neither NATS nor sockets, holds no lock and starts nothing: whoever owns a
// Table owns everything in it.
package users

import (
	"hash/maphash"
	"slices"

	"github.com/wirepost/wirepost/shared/userid"
)

// MaxReceivers is how many receivers one user may have in one table.
const MaxReceivers = 32

const pageSize = 256 // users; a page is never moved, so growth copies nothing

// Table holds the users of one downlink shard. R is what receives, X what the owner
// keeps for each user. It is made for a million users: they lie in pages without a
// heap object of their own, found by an index of 8 bytes a slot.
//
// Positions 0 ≤ i < Len are dense: Remove moves the last user into the hole. So a walk
// from Len-1 down to 0 sees everybody who was there when it began and was not removed,
// whatever is added or removed on the way.
type Table[R comparable, X any] struct {
	pages []*[pageSize]User[R, X]
	n     int
	index index
}

// User is one user of a table. A pointer to it is valid until the next Remove.
type User[R comparable, X any] struct {
	ID userid.ID
	X  X

	at    uint32 // its position in the table
	n     uint8  // receivers
	first Slot[R]
	more  *[]Slot[R] // behind the first; nil: none. Few have any, a slice would cost all 16 bytes
}

// Slot is one receiver of a user.
type Slot[R comparable] struct {
	Receiver R
	Conn     uint64 // ConnHash of its connection id
	Last     uint64 // the position up to which it has everything
	Joining  bool   // it does not get live frames yet
	Owed     bool   // it missed something and has not been told
}

var connSeed = maphash.MakeSeed()

// ConnHash is what stands for a connection id in a Slot: 64 bits, never 0, with a seed
// of this process. Two of one user's at most 32 connections share one by chance only.
func ConnHash(conn string) uint64 { return maphash.String(connSeed, conn) | 1 }

// Len is the number of users.
func (t *Table[R, X]) Len() int { return t.n }

// At returns the user at position i, 0 ≤ i < Len.
func (t *Table[R, X]) At(i int) *User[R, X] { return &t.pages[i/pageSize][i%pageSize] }

// Get returns the user named id, or nil.
func (t *Table[R, X]) Get(id userid.ID) *User[R, X] {
	h := hashOf(id)
	for i := t.index.start(h); ; i = t.index.next(i) {
		at, ok := t.index.look(i, h)
		if !ok {
			return nil
		}
		if at != noMatch {
			if u := t.At(int(at)); u.ID == id {
				return u
			}
		}
	}
}

// Find returns the user whose token it is, or nil. It keeps nothing of token, and allocates
// nothing.
func (t *Table[R, X]) Find(token []byte) *User[R, X] {
	h := hashOfToken(token)
	for i := t.index.start(h); ; i = t.index.next(i) {
		at, ok := t.index.look(i, h)
		if !ok {
			return nil
		}
		if at != noMatch {
			if u := t.At(int(at)); u.ID.Token() == string(token) {
				return u
			}
		}
	}
}

// Add puts a new user without receivers into the table and returns it. It must not be
// there yet. The table keeps the string inside id.
func (t *Table[R, X]) Add(id userid.ID) *User[R, X] {
	if t.n == len(t.pages)*pageSize {
		t.pages = append(t.pages, new([pageSize]User[R, X]))
	}
	if t.index.full(t.n) {
		t.reindex()
	}
	at := t.n
	t.n++
	t.index.put(hashOf(id), uint32(at))
	u := t.At(at)
	*u = User[R, X]{ID: id, at: uint32(at)}
	return u
}

// Remove takes a user out. Pointers to the last user of the table, and to this one,
// are invalid afterwards.
func (t *Table[R, X]) Remove(u *User[R, X]) {
	at := u.at
	t.index.drop(hashOf(u.ID), at)
	t.n--
	last := t.At(t.n)
	if last != u {
		t.index.move(hashOf(last.ID), last.at, at)
		*u = *last
		u.at = at
	}
	*last = User[R, X]{}
	if spare := len(t.pages) - (t.n+pageSize-1)/pageSize; spare > 1 { // keep one page against flutter
		clear(t.pages[len(t.pages)-spare+1:])
		t.pages = t.pages[:len(t.pages)-spare+1]
	}
}

func (t *Table[R, X]) reindex() {
	t.index.grow()
	for i := range t.n {
		t.index.put(hashOf(t.At(i).ID), uint32(i))
	}
}

// Len is the number of receivers.
func (u *User[R, X]) Len() int { return int(u.n) }

// At returns slot i, 0 ≤ i < Len. It is valid until the next Join or Leave.
func (u *User[R, X]) At(i int) *Slot[R] {
	if i == 0 {
		return &u.first
	}
	return &(*u.more)[i-1]
}

// Find returns the slot of receiver r, or nil.
func (u *User[R, X]) Find(r R) *Slot[R] {
	for i := range u.Len() {
		if s := u.At(i); s.Receiver == r {
			return s
		}
	}
	return nil
}

// Join adds a receiver. It reports false, and does nothing, when the user has
// MaxReceivers.
func (u *User[R, X]) Join(s Slot[R]) bool {
	if u.n == MaxReceivers {
		return false
	}
	switch {
	case u.n == 0:
		u.first = s
	case u.more == nil:
		u.more = &[]Slot[R]{s}
	default:
		*u.more = append(*u.more, s)
	}
	u.n++
	return true
}

// Leave removes receiver r; it returns its slot and whether it was there.
func (u *User[R, X]) Leave(r R) (Slot[R], bool) {
	s := u.Find(r)
	if s == nil {
		return Slot[R]{}, false
	}
	gone := *s
	if u.n > 1 {
		more := *u.more
		end := len(more) - 1
		*s = more[end]
		more[end] = Slot[R]{}
		switch more = more[:end]; {
		case end == 0:
			u.more = nil
		case cap(more) > 4*end:
			*u.more = slices.Clone(more)
		default:
			*u.more = more
		}
	} else {
		u.first = Slot[R]{}
	}
	u.n--
	return gone, true
}
