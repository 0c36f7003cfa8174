package balancers

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/shared/client"
	"github.com/wirepost/wirepost/shared/protocol"
)

const plainHeartbeat = `{"msgType":1}`

// peer is a client that does what a test says.
type peer struct {
	net.Conn
	r io.Reader
}

// open opens a WebSocket over a road.
func (r *road) open(ctx context.Context, header http.Header) (*peer, error) {
	d := ws.Dialer{Timeout: 10 * time.Second, NetDial: r.dial, Header: ws.HandshakeHeaderHTTP(header)}
	conn, br, _, err := d.Dial(ctx, r.url())
	if err != nil {
		return nil, err
	}
	p := &peer{conn, conn}
	if br != nil { // bytes that came with the answer
		p.r = io.MultiReader(io.LimitReader(br, int64(br.Buffered())), conn)
	}
	return p, nil
}

// login opens a WebSocket, logs in by its handshake, and takes the login reply.
func (r *road) login(ctx context.Context, tok string, header http.Header) (*peer, error) {
	if header = header.Clone(); header == nil {
		header = http.Header{}
	}
	header.Set("Authorization", "Bearer "+tok)
	p, err := r.open(ctx, header)
	if err != nil {
		return nil, err
	}
	_ = p.SetDeadline(time.Now().Add(20 * time.Second))
	f, err := p.next()
	if err != nil {
		_ = p.Close()
		return nil, err
	}
	var m protocol.Message
	if err := json.Unmarshal(f.Payload, &m); err != nil || m.MsgType != protocol.Login {
		_ = p.Close()
		return nil, fmt.Errorf("no login reply but %q", f.Payload)
	}
	return p, p.SetDeadline(time.Time{})
}

// next reads one frame.
func (p *peer) next() (ws.Frame, error) {
	h, err := ws.ReadHeader(p.r)
	if err != nil {
		return ws.Frame{}, err
	}
	b := make([]byte, h.Length)
	_, err = io.ReadFull(p.r, b)
	return ws.Frame{Header: h, Payload: b}, err
}

func (p *peer) send(op ws.OpCode, b []byte) error {
	return ws.WriteFrame(p, ws.MaskFrame(ws.NewFrame(op, true, b)))
}

// device is a client of the SDK and what it saw.
type device struct {
	*client.Client
	mu     sync.Mutex
	got    []string      // bodies, in order of arrival
	logins int           // how often it was connected
	ends   []string      // why it was not
	ready  chan struct{} // closed at the first login
}

// device connects a device of a user, which ends with the test.
func (r *road) device(t *testing.T, user string) *device {
	t.Helper()
	tok := token(t, user)
	c, err := client.New(client.Options{URLs: []string{r.url()}, User: user, NetDial: r.dial, FromStart: true,
		Token: func(context.Context) (string, error) { return tok, nil }})
	if err != nil {
		t.Fatal(err)
	}
	d := &device{Client: c, ready: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	ran, ended := make(chan error, 1), make(chan struct{})
	go func() { ran <- c.Run(ctx) }()
	go func() {
		defer close(ended)
		for ev := range c.Events() {
			d.note(ev)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if err := <-ran; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	select {
	case <-d.ready:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not come in: %v", user, d.ends)
	}
	return d
}

func (d *device) note(ev client.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch ev := ev.(type) {
	case client.Message:
		d.got = append(d.got, string(ev.Body))
	case client.Connected:
		if d.logins++; d.logins == 1 {
			close(d.ready)
		}
	case client.Disconnected:
		d.ends = append(d.ends, fmt.Sprint(ev.Code, " ", ev.Err))
	}
}

// seen returns what came so far.
func (d *device) seen() (got []string, logins int, ends []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.got...), d.logins, append([]string(nil), d.ends...)
}

// chat lets ann send to bob until told to stop. The returned function stops her, and says
// what is wrong with what was stored and with what bob got: nothing is lost, comes twice, or
// in another order.
func chat(t *testing.T, ann, bob *device, to string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 80*time.Second)
	t.Cleanup(cancel)
	quit, sent := make(chan struct{}), make(chan []*client.Pending, 1)
	go func() {
		var all []*client.Pending
		defer func() { sent <- all }()
		tick := time.NewTicker(25 * time.Millisecond) // below FRAME_RATE
		defer tick.Stop()
		for n := 0; ; n++ {
			p, err := ann.Send(ctx, to, n)
			if err != nil {
				t.Errorf("send: %v", err)
				return
			}
			all = append(all, p)
			select {
			case <-tick.C:
			case <-quit:
				return
			}
		}
	}()
	return func() {
		t.Helper()
		close(quit)
		all := <-sent
		for i, p := range all {
			if _, err := p.Wait(ctx); err != nil {
				t.Fatalf("message %d of %d: %v", i, len(all), err)
			}
		}
		eventually(t, 20*time.Second, "bob has all of them", func() bool { got, _, _ := bob.seen(); return len(got) >= len(all) })
		got, _, _ := bob.seen()
		for i, body := range got {
			if body != fmt.Sprint(i) || i >= len(all) {
				t.Fatalf("bob's message %d is %s of %d", i, body, len(all))
			}
		}
		t.Logf("%d messages", len(all))
	}
}

// newcomers lets somebody come in every 20 ms until told to stop, which tells how many did.
func (r *road) newcomers(t *testing.T, user string) (came func() int, stop func()) {
	t.Helper()
	tok := token(t, user)
	var mu sync.Mutex
	n := 0
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			p, err := r.login(context.Background(), tok, nil)
			if err != nil {
				t.Errorf("newcomer %d: %v", came(), err)
			} else {
				_ = p.Close()
				mu.Lock()
				n++
				mu.Unlock()
			}
			select {
			case <-tick.C:
			case <-quit:
				return
			}
		}
	}()
	came = func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
	stop = sync.OnceFunc(func() { close(quit); <-ended })
	t.Cleanup(stop)
	return came, stop
}

// get sends a request over the road and returns the answer, which opens no WebSocket.
func (r *road) get(t *testing.T, path string, header http.Header) *http.Response {
	t.Helper()
	conn, err := r.dial(t.Context(), "tcp", r.layers[0].addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	req, err := http.NewRequest(http.MethodGet, "http://chat.example.com"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	for name, value := range map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
		req.Header.Set(name, value)
	}
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res
}

// slug is the road's name as a part of a user id, which no other road has.
func (r *road) slug() string {
	name := strings.NewReplacer(" ", "-", ",", "").Replace(strings.ToLower(r.name))
	return name + r.from[strings.LastIndex(r.from, "."):]
}
