package messaging

import (
	"strings"

	"github.com/wirepost/wirepost/shared/userid"
)

// A direct conversation's id is "d:<a>:<b>", a and b the canonical ids of its two
// members in byte order. Canonical forms hold neither ':' nor '/', so no conversation's
// range of message ids ("<conv>/<seq>") can cover another's. Clients treat it as opaque.
const directPrefix = "d:"

// direct returns the conversation of two users and its members; a user's conversation
// with oneself has one member.
func direct(a, b userid.ID) (conv string, members []userid.ID) {
	if a == b {
		return directPrefix + a.Token() + ":" + a.Token(), []userid.ID{a}
	}
	members = []userid.ID{a, b}
	if b.Token() < a.Token() {
		a, b = b, a
	}
	return directPrefix + a.Token() + ":" + b.Token(), members
}

// parseDirect takes a direct conversation's id apart; ok is false for every string that
// direct does not return.
func parseDirect(conv string) (a, b userid.ID, ok bool) {
	rest, found := strings.CutPrefix(conv, directPrefix)
	x, y, two := strings.Cut(rest, ":")
	if !found || !two || y < x {
		return userid.ID{}, userid.ID{}, false
	}
	a, err1 := userid.FromToken(x)
	b, err2 := userid.FromToken(y)
	return a, b, err1 == nil && err2 == nil
}

// peerOf returns the other member of a direct conversation; ok is false when user is no
// member.
func peerOf(conv string, user userid.ID) (peer userid.ID, ok bool) {
	a, b, ok := parseDirect(conv)
	switch {
	case !ok:
		return userid.ID{}, false
	case a == user:
		return b, true
	case b == user:
		return a, true
	}
	return userid.ID{}, false
}
