package feed

import "slices"

const (
	bufferSize = 32 << 10 // of a batch; ≥ maxLine. A larger message gets a buffer of its own
	batches    = 2        // of a connection: one is filled while the other one is worked
)

// Batch is frames in the order in which they came. It owns their bytes: whoever keeps any
// of them longer than until Release must copy it.
type Batch struct {
	Frames []Frame

	buf  []byte
	home chan<- *Batch // of its wire; has room for all of its batches
}

// Release gives the batch back to the connection that it came from. It is called once.
func (b *Batch) Release() { b.home <- b }

// reset empties b, and puts rest at the start of its buffer, with room for need bytes.
func (b *Batch) reset(rest []byte, need int) {
	clear(b.Frames)
	b.Frames = b.Frames[:0]
	if cap(b.buf) != bufferSize { // it is new, or was grown for one message
		b.buf = make([]byte, 0, bufferSize)
	}
	b.buf = b.room(append(b.buf[:0], rest...), need)
}

// shift drops the first used bytes, and makes room for need bytes in all.
func (b *Batch) shift(used, need int) {
	rest := copy(b.buf, b.buf[used:])
	b.buf = b.room(b.buf[:rest], need)
}

// room returns buf with room for need bytes in all, one more than there are at least.
func (*Batch) room(buf []byte, need int) []byte {
	if more := max(need, len(buf)+1) - len(buf); more > cap(buf)-len(buf) {
		return slices.Grow(buf, more)
	}
	return buf
}
