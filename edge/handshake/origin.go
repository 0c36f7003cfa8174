package handshake

import (
	"fmt"
	"net/url"
	"strings"
)

// Origins is the list of web origins that may connect. A request without an Origin
// header comes from no browser and is always allowed: the list guards people's
// browsers against foreign pages (cross-site WebSocket hijacking), tokens guard the edge.
type Origins struct {
	exact   map[string]bool
	anyPort map[string]bool // "http://localhost" of the entry http://localhost:*
}

// ParseOrigins reads a list of origins: exact ones (https://chat.example.com), exact but
// for the port (http://localhost:*), and the word null for pages without an origin.
// There is no entry that allows everybody.
func ParseOrigins(list []string) (Origins, error) {
	o := Origins{exact: map[string]bool{}, anyPort: map[string]bool{}}
	for _, entry := range list {
		s := strings.ToLower(strings.TrimSpace(entry))
		switch base, wild := strings.CutSuffix(s, ":*"); {
		case s == "":
		case s == "null":
			o.exact[s] = true
		case !originLike(base):
			return Origins{}, fmt.Errorf("%q is no origin like https://chat.example.com or http://localhost:*", entry)
		case wild:
			o.anyPort[base] = true
		default:
			o.exact[s] = true
		}
	}
	return o, nil
}

func originLike(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil &&
		!strings.Contains(s, "*") && u.Scheme+"://"+u.Host == s
}

// Allow reports whether a page of this origin may connect.
func (o Origins) Allow(origin string) bool {
	s := strings.ToLower(origin)
	if o.exact[s] || o.anyPort[s] { // without a port: the scheme's own
		return true
	}
	i := strings.LastIndexByte(s, ':')
	return i > 0 && digits(s[i+1:]) && o.anyPort[s[:i]]
}

func digits(s string) bool {
	if s == "" || len(s) > 5 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
