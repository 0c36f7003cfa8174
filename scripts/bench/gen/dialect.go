package gen

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/scripts/load/wire"
)

// The dialects.
const (
	Plain      = "plain"      // WebSocket alone
	Edge       = "edge"       // im.json.v1, the token in the handshake
	Centrifuge = "centrifuge" // centrifuge's JSON protocol
)

// size is the payload of a message, in bytes; of Plain it is peer.MessageSize.
const size = 128

// tokenLife is longer than any run.
const tokenLife = 2 * time.Hour

// dialect is how a kind of server is talked to.
type dialect struct {
	header    []string // by user: lines of the handshake
	devices   uint32   // connections of a user
	hello     string   // the first message of a connection; "": none
	welcome   bool     // the server's first message ends the opening
	ping      string   // a message as heartbeat; "": a ping of the WebSocket protocol
	ask       []byte   // a message that is answered by one
	publish   []byte   // a message that goes to everybody
	delivered []byte   // what each message to everybody holds; nil: a delivery is a whole message
}

func newDialect(o Options) (*dialect, error) {
	filler := strings.Repeat("x", size)
	d := &dialect{devices: uint32(max(o.Devices, 1))}
	switch o.Dialect {
	case Plain:
		d.ask, d.publish = []byte(filler), []byte(filler)
	case Centrifuge:
		d.hello, d.welcome = `{"id":1,"connect":{}}`, true
		d.ask = []byte(`{"id":2,"rpc":{"method":"echo","data":"` + filler + `"}}`)
		d.publish = []byte(`{"id":3,"publish":{"channel":"everybody","data":"` + filler + `"}}`)
		d.delivered = []byte(`"pub":`)
	case Edge:
		d.welcome, d.ping = true, `{"msgType":1}`
		d.ask = []byte(d.ping) // the one message that an edge answers itself
		for u := range (o.Conns + int(d.devices) - 1) / int(d.devices) {
			token, err := devkeys.Token([]byte(o.Secret), User(u), tokenLife)
			if err != nil {
				return nil, fmt.Errorf("make token: %w", err)
			}
			d.header = append(d.header, "Authorization: Bearer "+token+"\r\n")
		}
	default:
		return nil, fmt.Errorf("unknown dialect %q", o.Dialect)
	}
	return d, nil
}

// User names a user of the benchmark.
func User(n int) string { return "bench-" + strconv.Itoa(n) }

func (d *dialect) appendHeader(id uint32, b []byte) []byte {
	if d.header == nil {
		return b
	}
	return append(b, d.header[id/d.devices]...)
}

func (d *dialect) beat(c *wire.Conn) error {
	if d.ping == "" {
		return c.Ping(nil)
	}
	return c.Text([]byte(d.ping))
}

// deliveries counts them in a message: a server may put several into one.
func (d *dialect) deliveries(b []byte) int {
	if d.delivered == nil {
		return 1
	}
	return bytes.Count(b, d.delivered)
}
