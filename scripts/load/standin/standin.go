// Package standin is a gateway for tests of the load tool. It speaks as much of the client
// protocol as the tool does, keeps everything in memory, and does wrong what it is told to.
package standin

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/wirepost/wirepost/scripts/load/agent"
	"github.com/wirepost/wirepost/shared/protocol"
)

// Fault is what happens to a message.
type Fault int

// The faults.
const (
	None     Fault = iota
	LoseCopy       // acknowledged, but not delivered to the recipient
	LoseAll        // neither acknowledged nor delivered
	Refuse         // refused for ever
	Double         // delivered twice
	Astray         // delivered to somebody else too
)

// Gateway is a running stand-in.
type Gateway struct {
	URL    string            // of Start
	faults func(n int) Fault // of the n-th message, from 0

	gate sync.RWMutex // held for writing while the gateway stands still

	mu     sync.Mutex
	users  map[string][]*session
	n      int // messages so far
	logins int
	resume bool // the answer to a resume token
	stored map[string]bool
	missed map[string][]protocol.Message // of users without a connection
}

type session struct {
	mu   sync.Mutex // one frame at a time
	conn net.Conn
	user string
}

// New returns a gateway, which is a handler of HTTP. faults may be nil.
func New(faults func(n int) Fault) *Gateway {
	return &Gateway{faults: faults, users: map[string][]*session{}, resume: true, stored: map[string]bool{},
		missed: map[string][]protocol.Message{}}
}

// Start starts a gateway that ends with the test. faults may be nil.
func Start(t testing.TB, faults func(n int) Fault) *Gateway {
	g := New(faults)
	srv := httptest.NewServer(g)
	t.Cleanup(srv.Close)
	t.Cleanup(g.CloseAll)
	g.URL = "ws" + strings.TrimPrefix(srv.URL, "http") + "/ws"
	return g
}

// Stall makes the gateway stand still until the returned function is called, which may
// be called again.
func (g *Gateway) Stall() (goOn func()) {
	g.gate.Lock()
	return sync.OnceFunc(g.gate.Unlock)
}

// CloseAll closes every connection without a word.
func (g *Gateway) CloseAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, all := range g.users {
		for _, s := range all {
			_ = s.conn.Close()
		}
	}
}

// Forget makes the gateway answer resume tokens with resumed:false.
func (g *Gateway) Forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.resume = false
}

// Logins returns how many there were.
func (g *Gateway) Logins() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.logins
}

// ServeHTTP is one connection, from its handshake to its end.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.gate.RLock()
	conn, _, _, err := ws.UpgradeHTTP(r, w)
	g.gate.RUnlock()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	s := &session{conn: conn}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		g.login(s, token, false)
	}
	defer g.leave(s)
	for {
		b, err := wsutil.ReadClientText(conn)
		if err != nil {
			return
		}
		g.gate.RLock()
		g.take(s, b)
		g.gate.RUnlock()
	}
}

func (g *Gateway) take(s *session, b []byte) {
	var m protocol.Message
	if json.Unmarshal(b, &m) != nil {
		return
	}
	switch m.MsgType {
	case protocol.Login:
		var l protocol.LoginRequest
		_ = json.Unmarshal(m.MsgBody, &l)
		g.login(s, l.Token, l.Resume != "")
	case protocol.Heartbeat:
		_ = s.send(protocol.Message{Resume: "h", MsgType: protocol.Heartbeat})
	case protocol.Business:
		g.business(s, m)
	}
}

func (g *Gateway) login(s *session, token string, resume bool) {
	user, err := agent.Subject(token)
	if err != nil {
		return
	}
	s.user = user
	g.mu.Lock()
	g.users[user] = append(g.users[user], s)
	g.logins++
	defer g.mu.Unlock()
	body, _ := json.Marshal(protocol.LoginReply{UserID: user, HeartbeatMs: 500, Resumed: resume && g.resume})
	_ = s.send(protocol.Message{Resume: "l", MsgType: protocol.Login, MsgBody: body})
	for _, m := range g.missed[user] {
		_ = s.send(m)
	}
	delete(g.missed, user)
}

func (g *Gateway) leave(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.users[s.user] = slices.DeleteFunc(g.users[s.user], func(o *session) bool { return o == s })
}

// business stores a message, so to speak, and delivers it.
func (g *Gateway) business(s *session, m protocol.Message) {
	g.mu.Lock()
	defer g.mu.Unlock()
	fault := None
	if !g.stored[m.ClientMsgID] { // what is repeated fares well
		if g.faults != nil {
			fault = g.faults(g.n)
		}
		g.n++
		g.stored[m.ClientMsgID] = true
	}
	m.SendUserID, m.Resume = s.user, "m"
	switch fault {
	case Refuse:
		_ = s.send(protocol.Message{MsgType: protocol.Business, ClientMsgID: m.ClientMsgID, Code: protocol.CodeBodyTooLarge})
		return
	case LoseAll:
		return
	case Double:
		g.deliver(m.ReceivedUserID, m)
	case Astray:
		for user := range g.users {
			if user != s.user && user != m.ReceivedUserID {
				g.deliver(user, m)
				break
			}
		}
	}
	g.deliver(s.user, m)
	if fault != LoseCopy && m.ReceivedUserID != s.user {
		g.deliver(m.ReceivedUserID, m)
	}
}

// deliver is called with mu held.
func (g *Gateway) deliver(user string, m protocol.Message) {
	seen := false
	for _, s := range g.users[user] {
		seen = s.send(m) == nil || seen
	}
	if !seen {
		g.missed[user] = append(g.missed[user], m)
	}
}

func (s *session) send(m protocol.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return wsutil.WriteServerText(s.conn, m.Append(nil)) // it leaves when its reading ends
}
