package users

import (
	"hash/maphash"

	"github.com/wirepost/wirepost/shared/userid"
)

// index maps a 32-bit hash to positions: linear probing over slots of 8 bytes,
//
//	bits 63–32  hash of the user id
//	bits 31–0   position in the table, plus one; 0 is an empty slot
//
// filled to three quarters at most. Deletion shifts back what follows, so there are no
// graves and a long-lived table with much coming and going stays fast.
type index struct {
	slots []uint64 // a power of two
}

const noMatch = ^uint32(0)

var idSeed = maphash.MakeSeed()

func hashOf(id userid.ID) uint32 { return uint32(maphash.String(idSeed, id.Token())) }

// hashOfToken is hashOf for a token that is no string.
func hashOfToken(token []byte) uint32 { return uint32(maphash.Bytes(idSeed, token)) }

func (x *index) start(h uint32) int { return int(h) & (len(x.slots) - 1) }
func (x *index) next(i int) int     { return (i + 1) & (len(x.slots) - 1) }

// look reads slot i: not ok is the end of the run; noMatch is another hash.
func (x *index) look(i int, h uint32) (at uint32, ok bool) {
	if len(x.slots) == 0 || x.slots[i] == 0 {
		return 0, false
	}
	if uint32(x.slots[i]>>32) != h {
		return noMatch, true
	}
	return uint32(x.slots[i]) - 1, true
}

func (x *index) full(n int) bool { return 4*(n+1) > 3*len(x.slots) }

// grow doubles and empties the index; the caller puts everything again.
func (x *index) grow() { x.slots = make([]uint64, max(16, 2*len(x.slots))) }

func (x *index) put(h, at uint32) {
	i := x.start(h)
	for x.slots[i] != 0 {
		i = x.next(i)
	}
	x.slots[i] = uint64(h)<<32 | uint64(at+1)
}

func (x *index) find(h, at uint32) int {
	want := uint64(h)<<32 | uint64(at+1)
	i := x.start(h)
	for x.slots[i] != want {
		i = x.next(i)
	}
	return i
}

func (x *index) move(h, from, to uint32) { x.slots[x.find(h, from)] = uint64(h)<<32 | uint64(to+1) }

// drop empties the slot of (h, at) and closes the hole: a later slot of the same run
// moves into it unless its own start lies behind the hole.
func (x *index) drop(h, at uint32) {
	hole := x.find(h, at)
	for i := x.next(hole); x.slots[i] != 0; i = x.next(i) {
		home := x.start(uint32(x.slots[i] >> 32))
		if (i-home)&(len(x.slots)-1) >= (i-hole)&(len(x.slots)-1) {
			x.slots[hole] = x.slots[i]
			hole = i
		}
	}
	x.slots[hole] = 0
}
