package fleet

import (
	"fmt"
	"strings"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// proxy forwards the connections that one process opens to another. A connection to a
// process that is down is closed at once.
type proxy struct {
	server *toxiproxy.Proxy
	lines  [2]*line // there and back
}

// newProxies returns what proxies of one fleet belong to. It writes no log and serves
// no API.
func newProxies() *toxiproxy.ApiServer {
	return toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
}

// newProxy listens on a port of the system's choice, which it keeps until close.
func newProxy(of *toxiproxy.ApiServer, name, to string) (*proxy, error) {
	p := &proxy{server: toxiproxy.NewProxy(of, name, "127.0.0.1:0", to)}
	for i, direction := range []string{"upstream", "downstream"} {
		toxic, err := p.server.Toxics.AddToxicJson(strings.NewReader(
			fmt.Sprintf(`{"name":%q,"type":%q,"stream":%q}`, direction, lineType, direction)))
		if err != nil {
			return nil, fmt.Errorf("proxy %s: %w", name, err)
		}
		p.lines[i] = toxic.Toxic.(*line) // of the type that lineType is registered with
	}
	if err := p.server.Start(); err != nil {
		return nil, fmt.Errorf("proxy %s: %w", name, err)
	}
	return p, nil
}

// addr is what to dial.
func (p *proxy) addr() string { return p.server.Listen }

func (p *proxy) set(change func(*condition)) {
	for _, l := range p.lines {
		l.set(change)
	}
}

// close closes the listener and every connection.
func (p *proxy) close() {
	p.set(func(c *condition) { c.cut, c.age = false, c.age+1 })
	p.server.Stop()
}
