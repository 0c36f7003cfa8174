package socket

import "math/bits"

// buffers lends byte slices in powers of two. Each keeper owns one, so there is no lock;
// a connection at rest holds none. What is lent is counted against a budget: a take that
// would pass it fails, and the connection that asked is closed instead of the process.
// One take gets a part of what is left at most: when the budget runs short, who asks for
// much is refused while those who ask for little are still served.
type buffers struct {
	free   [maxClass + 1][][]byte
	lent   int64 // bytes
	budget int64
}

const (
	minClass  = 8  // 256 B
	maxClass  = 22 // 4 MiB
	keepBytes = 1 << 20
	fairPart  = 8 // one take gets at most 1/fairPart of what is left of the budget
)

// take returns an empty slice of at least n bytes of capacity, nil when too little is
// left of the budget.
func (p *buffers) take(n int) []byte {
	class := max(bits.Len(uint(max(n, 1)-1)), minClass)
	size := int64(1) << class
	if size > (p.budget-p.lent)/fairPart {
		return nil
	}
	p.lent += size
	if class <= maxClass {
		if list := p.free[class]; len(list) > 0 {
			b := list[len(list)-1]
			p.free[class] = list[:len(list)-1]
			return b
		}
	}
	return make([]byte, 0, size)
}

// give takes back what take, or grow, returned; nil is ignored.
func (p *buffers) give(b []byte) {
	if cap(b) == 0 {
		return
	}
	p.lent -= int64(cap(b))
	class := bits.Len(uint(cap(b) - 1))
	if class > maxClass || len(p.free[class]) >= max(keepBytes>>class, 1) {
		return // a burst is over: give its memory back
	}
	p.free[class] = append(p.free[class], b[:0])
}

// grow returns a slice with the bytes of b and room for n more, and takes b back if it
// is another one. nil, and b untouched, when the budget is used up.
func (p *buffers) grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n && b != nil {
		return b
	}
	bigger := p.take(len(b) + n)
	if bigger == nil {
		return nil
	}
	bigger = append(bigger, b...)
	p.give(b)
	return bigger
}
