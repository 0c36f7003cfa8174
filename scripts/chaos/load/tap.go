package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"sync"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/scripts/chaos/history"
	"github.com/wirepost/wirepost/shared/protocol"
)

// tap is a client's connection whose frames are written down as they pass: what the
// client writes before it is written, what it reads before the client has it.
type tap struct {
	net.Conn
	to   *history.Writer
	who  history.Record // dev, life, conn
	self string         // the user

	in, out frames
	opened  bool // the login was answered; used by the reader alone
	over    sync.Once

	mu   sync.Mutex
	code int // of the gateway's close frame
}

func newTap(nc net.Conn, to *history.Writer, who history.Record, self string) *tap {
	return &tap{Conn: nc, to: to, who: who, self: self}
}

func (t *tap) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if n > 0 {
		t.in.feed(b[:n], t.received)
	}
	if err != nil {
		t.closed()
	}
	return n, err
}

func (t *tap) Write(b []byte) (int, error) {
	t.out.feed(b, t.written)
	return t.Conn.Write(b)
}

// Close ends the connection; it may be called by anybody, also to cut the client off.
func (t *tap) Close() error {
	err := t.Conn.Close()
	t.closed()
	return err
}

func (t *tap) closed() {
	t.over.Do(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		r := t.record(history.Close)
		r.Code = t.code
		t.to.Add(r)
	})
}

func (t *tap) record(k history.Kind) history.Record {
	r := t.who
	r.Kind = k
	return r
}

// received writes down a frame of the gateway.
func (t *tap) received(op ws.OpCode, payload []byte) {
	if op == ws.OpClose {
		code, _ := ws.ParseCloseFrameData(payload)
		t.mu.Lock()
		t.code = int(code)
		t.mu.Unlock()
	}
	if op != ws.OpText {
		return
	}
	var m protocol.Message
	if json.Unmarshal(payload, &m) != nil {
		return // the client says so in its log
	}
	switch m.MsgType {
	case protocol.Login:
		t.login(&m)
	case protocol.Notice:
		if m.Code == protocol.NoticeResync {
			t.to.Add(t.record(history.Resync))
		}
	case protocol.Business:
		t.business(&m)
	}
}

func (t *tap) login(m *protocol.Message) {
	var reply protocol.LoginReply
	if t.opened || json.Unmarshal(m.MsgBody, &reply) != nil {
		return // a new token on a live connection
	}
	t.opened = true
	r := t.record(history.Open)
	r.Edge, r.Resumed = reply.Edge, reply.Resumed
	t.to.Add(r)
}

func (t *tap) business(m *protocol.Message) {
	switch {
	case m.ReqID != "": // the answer to a query
	case m.Code != 0 && m.ClientMsgID != "":
		r := t.record(history.Later)
		if protocol.Permanent(m.Code) {
			r.Kind = history.Never
		}
		r.CID, r.Code = m.ClientMsgID, m.Code
		t.to.Add(r)
	case m.ConvID != "" && m.Seq > 0:
		r := t.record(history.Wire)
		message(&r, m)
		t.to.Add(r)
	}
}

// written writes down a send of the client.
func (t *tap) written(op ws.OpCode, payload []byte) {
	if op != ws.OpText || !bytes.Contains(payload, []byte(`"clientMsgId"`)) {
		return
	}
	var m protocol.Message
	if json.Unmarshal(payload, &m) != nil || m.BizType != protocol.BizChat {
		return
	}
	r := t.record(history.Put)
	r.CID, r.To = m.ClientMsgID, m.ReceivedUserID
	t.to.Add(r)
}

// message copies what a stored message says into a record.
func message(r *history.Record, m *protocol.Message) {
	r.Conv, r.Seq, r.CID, r.From, r.To, r.Body = m.ConvID, m.Seq, m.ClientMsgID, m.SendUserID, m.ReceivedUserID, Digest(m.MsgBody)
}

// frames cuts one direction of a connection into frames, behind the HTTP message that
// begins it. Nobody here fragments.
type frames struct {
	buf  []byte
	http bool // the HTTP message is over
}

// feed takes the next bytes and calls each for every frame that is complete, with its
// payload unmasked; it is valid until each returns.
func (f *frames) feed(b []byte, each func(ws.OpCode, []byte)) {
	f.buf = append(f.buf, b...)
	if !f.http {
		_, rest, found := bytes.Cut(f.buf, []byte("\r\n\r\n"))
		if !found {
			return
		}
		f.http = true
		f.buf = append(f.buf[:0], rest...)
	}
	rest := f.buf
	for {
		r := bytes.NewReader(rest)
		h, err := ws.ReadHeader(r)
		if err != nil || int64(r.Len()) < h.Length {
			break // the rest of it is still to come
		}
		at := len(rest) - r.Len()
		payload := rest[at : at+int(h.Length)]
		if h.Masked {
			ws.Cipher(payload, h.Mask, 0) // in the copy
		}
		each(h.OpCode, payload)
		rest = rest[at+int(h.Length):]
	}
	f.buf = append(f.buf[:0], rest...)
}

// digestOver is up to how many bytes a body stands in a history as it is.
const digestOver = 200

// Digest is how a body stands in a history: a long one by its beginning, its length and
// a checksum.
func Digest(body []byte) string {
	if len(body) <= digestOver {
		return string(body)
	}
	h := uint64(14695981039346656037) // FNV-1a, 64 bit
	for _, c := range body {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return fmt.Sprintf("%s… %d bytes %016x", body[:60], len(body), h)
}
