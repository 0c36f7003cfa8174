package downlink

import (
	"strconv"
	"strings"
	"unique"
)

// Token is a position in the downlink: everything of the user up to it was handed over.
// It is comparable and small (16 bytes). On the wire it is "<epoch>.<shard>.<seq>",
// at most 64 bytes, opaque to clients. The zero Token is no position.
type Token struct {
	in  unique.Handle[incarnation]
	seq uint64
}

// incarnation is one life of one shard's stream.
type incarnation struct {
	epoch string
	shard int
}

// maxToken is the longest token: 16 bytes of epoch, a shard, and 20 digits. What is
// longer was not made here.
const maxToken = 64

// NewToken makes a token; the epoch is one of package stream's.
func NewToken(epoch string, shard int, seq uint64) Token {
	return Token{in: unique.Make(incarnation{epoch: epoch, shard: shard}), seq: seq}
}

// IsZero reports whether t is no position.
func (t Token) IsZero() bool { return t == Token{} }

// AppendTo appends t as it stands on the wire; the zero Token appends nothing.
func (t Token) AppendTo(b []byte) []byte {
	if t.IsZero() {
		return b
	}
	in := t.in.Value()
	b = append(b, in.epoch...)
	b = append(b, '.')
	b = strconv.AppendInt(b, int64(in.shard), 10)
	b = append(b, '.')
	return strconv.AppendUint(b, t.seq, 10)
}

func (t Token) String() string { return string(t.AppendTo(nil)) }

// parseToken reads a token that a client sent. It accepts what AppendTo writes;
// the epoch is of use only when it is compared with a known one.
func parseToken(s string) (in incarnation, seq uint64, ok bool) {
	if len(s) > maxToken {
		return incarnation{}, 0, false
	}
	epoch, rest, ok1 := strings.Cut(s, ".")
	shard, num, ok2 := strings.Cut(rest, ".")
	if !ok1 || !ok2 || !canonical(shard) || !canonical(num) {
		return incarnation{}, 0, false
	}
	n, err1 := strconv.ParseInt(shard, 10, 32)
	seq, err2 := strconv.ParseUint(num, 10, 64)
	if err1 != nil || err2 != nil || epoch == "" {
		return incarnation{}, 0, false
	}
	return incarnation{epoch: epoch, shard: int(n)}, seq, true
}

// canonical reports whether s is a decimal number without sign or leading zero.
func canonical(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || '9' < s[i] {
			return false
		}
	}
	return s == "0" || s != "" && s[0] != '0'
}
