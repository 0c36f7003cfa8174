package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// otlpServer is a collector that keeps spans.
type otlpServer struct {
	url string

	mu       sync.Mutex
	spans    []*otlp.Span
	services map[string]bool
}

func startCollector(t *testing.T) *otlpServer {
	t.Helper()
	c := &otlpServer{services: map[string]bool{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.take(r); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
	}))
	t.Cleanup(srv.Close)
	c.url = srv.URL
	return c
}

func (c *otlpServer) take(r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return err
		}
		if body, err = io.ReadAll(z); err != nil {
			return err
		}
	}
	var export collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &export); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range export.ResourceSpans {
		for _, a := range resource.Resource.Attributes {
			if a.Key == "service.name" || a.Key == "service.instance.id" || a.Key == "deployment.environment.name" {
				c.services[a.Value.GetStringValue()] = true
			}
		}
		for _, scope := range resource.ScopeSpans {
			c.spans = append(c.spans, scope.Spans...)
		}
	}
	return nil
}

// of returns the spans of a trace by name.
func (c *otlpServer) of(trace string) map[string]*otlp.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[string]*otlp.Span{}
	for _, span := range c.spans {
		if hex.EncodeToString(span.TraceId) == trace {
			found[span.Name] = span
		}
	}
	return found
}

// A client says what its message is a part of; a collector sees what the worker did with it
// below that, and the frames carry it on.
func TestTraces(t *testing.T) {
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	c := startCollector(t)
	s := start(t, servers.Ferret(t), "OTEL_EXPORTER_OTLP_ENDPOINT="+c.url, "OTEL_BSP_SCHEDULE_DELAY=100",
		"OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=e2e", "OTEL_SERVICE_NAME=chat")
	bob := userid.MustParse("bob")
	frames := make(chan *nats.Msg, 8)
	nc := s.nats.Conn(t)
	sub, err := nc.ChanSubscribe(subject.Live(subject.Shard(bob, stream.DefaultShards), bob), frames)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()

	alice := loginRaw(t, s.url(0), "alice")
	alice.text(`{"msgType":3,"receivedUserId":"bob","bizType":1,"bizOptModule":1,"clientMsgId":"c1","msgBody":"hi","traceparent":"00-` + trace + "-" + span + `-01"}`)
	if m := alice.next(); m.Seq != 1 {
		t.Fatalf("answered with %+v", m)
	}
	eventually(t, 20*time.Second, "three spans are exported", func() bool { return len(c.of(trace)) == 3 })
	got := c.of(trace)
	process, insert, send := got["process UP_7"], got["insert messages"], got["send im.down"]
	if process == nil || insert == nil || send == nil {
		t.Fatalf("spans %v", got)
	}
	if hex.EncodeToString(process.ParentSpanId) != span || !bytes.Equal(insert.ParentSpanId, process.SpanId) || !bytes.Equal(send.ParentSpanId, process.SpanId) {
		t.Errorf("the spans are not below each other: %v", got)
	}
	if insert.EndTimeUnixNano > send.StartTimeUnixNano || process.StartTimeUnixNano > insert.StartTimeUnixNano || process.EndTimeUnixNano < send.EndTimeUnixNano {
		t.Errorf("it was not stored, then sent, all within its processing: %v", got)
	}
	for _, name := range []string{"chat", "e2e"} {
		if !c.services[name] {
			t.Errorf("the resource of the spans says %v, and not %s", c.services, name)
		}
	}
	select {
	case m := <-frames:
		if got, want := m.Header.Get(envelope.TraceParent), "00-"+trace+"-"+hex.EncodeToString(send.SpanId)+"-01"; got != want {
			t.Errorf("bob's frame carries %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Error("no frame for bob")
	}
}
