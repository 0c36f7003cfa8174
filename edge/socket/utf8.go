package socket

import "unicode/utf8"

// utf8Check validates text that arrives in pieces (RFC 6455 section 8.1). It fails at
// the first byte that no continuation can save.
type utf8Check struct {
	tail [3]byte // an incomplete character at the end of what was seen
	n    uint8
}

// add takes the next piece and reports whether all so far can still be valid.
func (u *utf8Check) add(b []byte) bool {
	for u.n > 0 {
		if len(b) == 0 {
			return true
		}
		var char [utf8.UTFMax]byte
		n := copy(char[:], u.tail[:u.n])
		char[n] = b[0]
		b = b[1:]
		n++
		if !utf8.FullRune(char[:n]) { // also false for what can never become one
			copy(u.tail[:], char[:n])
			u.n = uint8(n)
			continue
		}
		if r, size := utf8.DecodeRune(char[:n]); r == utf8.RuneError && size <= 1 {
			return false
		}
		u.n = 0
	}
	end := len(b)
	for i := 1; i <= min(3, len(b)); i++ {
		if utf8.RuneStart(b[len(b)-i]) {
			if !utf8.FullRune(b[len(b)-i:]) {
				end = len(b) - i
			}
			break
		}
	}
	u.n = uint8(copy(u.tail[:], b[end:]))
	return utf8.Valid(b[:end])
}

// whole reports whether the text so far does not end inside a character.
func (u *utf8Check) whole() bool { return u.n == 0 }
