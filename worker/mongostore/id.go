package mongostore

import (
	"strconv"
	"strings"
)

const (
	// seqDigits is the fixed width of a sequence number in an _id, so that the order of
	// the strings is the order of the numbers.
	seqDigits = 16
	// maxSeq is the highest number that fits.
	maxSeq = 9_999_999_999_999_999
	// maxConv is the most bytes of a conversation id. Two canonical user ids and their
	// prefix need 771.
	maxConv = 1024
)

const zeros = "0000000000000000"

// messageID returns the _id of a message: "<conv>/<seq, 16 digits>", 0 ≤ seq ≤ maxSeq.
func messageID(conv string, seq int64) string {
	b := make([]byte, 0, len(conv)+1+seqDigits)
	b = append(append(b, conv...), '/')
	digits := strconv.AppendInt(make([]byte, 0, seqDigits), seq, 10)
	b = append(b, zeros[:seqDigits-len(digits)]...)
	return string(append(b, digits...))
}

// parseMessageID takes a message's _id apart.
func parseMessageID(id string) (conv string, seq int64, ok bool) {
	at := len(id) - seqDigits - 1
	if at < 1 || id[at] != '/' {
		return "", 0, false
	}
	for i := at + 1; i < len(id); i++ {
		if id[i] < '0' || '9' < id[i] {
			return "", 0, false
		}
		seq = seq*10 + int64(id[i]-'0')
	}
	return id[:at], seq, true
}

// validConv reports whether a conversation id may be part of an _id. A '/' in it would
// let the range of one conversation cover another's.
func validConv(conv string) bool {
	return conv != "" && len(conv) <= maxConv && !strings.ContainsAny(conv, "/\x00")
}

// memberID returns the _id of a member: "<user>/<conv>". A canonical user id holds no
// '/', so the members of one user are one range of _id.
func memberID(user, conv string) string { return user + "/" + conv }
