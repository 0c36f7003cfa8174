package mongostore

import (
	"bytes"
	"errors"
	"sort"
	"strconv"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/messaging"
)

func TestMessageID(t *testing.T) {
	var ids []string
	for _, seq := range []int64{0, 1, 9, 10, 99, 1 << 40, 1<<53 - 1, maxSeq} {
		id := messageID("d:a:b", seq)
		ids = append(ids, id)
		conv, got, ok := parseMessageID(id)
		if !ok || conv != "d:a:b" || got != seq {
			t.Errorf("%s is read as %s, %d, %v", id, conv, got, ok)
		}
	}
	if !sort.StringsAreSorted(ids) {
		t.Errorf("ids are not in the order of their numbers: %v", ids)
	}
	for _, bad := range []string{"", "/0000000000000001", "a/000000000000001", "a0000000000000001", "a/00000000000000x1", "a/-000000000000001"} {
		if _, _, ok := parseMessageID(bad); ok {
			t.Errorf("%q is taken for an id", bad)
		}
	}
}

func TestCacheKeepsTheLatestGenerations(t *testing.T) {
	c := newCache(10)
	c.setKnown("hot")
	c.raise("hot", 5)
	c.raise("hot", 3)
	c.raise("never known", 9)
	for i := range 100 {
		c.setKnown(strconv.Itoa(i))
		if last, ok := c.last("hot"); !ok || last != 5 {
			t.Fatalf("what is in use was forgotten after %d others: %d, %v", i, last, ok)
		}
	}
	if c.known("0") || c.known("never known") || !c.known("99") {
		t.Error("the cache holds the wrong conversations")
	}
	if _, ok := c.last("99"); ok {
		t.Error("a conversation that was not read has a last number")
	}
	if n := len(c.cur) + len(c.old); n > 20 {
		t.Errorf("%d conversations are kept, want 20 at most", n)
	}
	c.drop("hot")
	if c.known("hot") {
		t.Error("dropped and still known")
	}
}

func TestDocumentIsReadAsItWasWritten(t *testing.T) {
	body := []byte("[[1],{\"$a.b\":\"\x00\"}]")
	m := messaging.NewMessage{Conv: "d:a:b", From: userid.MustParse("ä/*"), CID: "c", Type: 1001, Body: body, TS: 1<<41 + 1}
	e := &entry{msg: &m, hash: hashOf(body), seq: 17}
	raw := bson.Raw(appendMessage(nil, e))
	if err := raw.Validate(); err != nil {
		t.Fatal(err)
	}
	var doc messageDoc
	if err := bson.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	got, err := doc.message()
	if err != nil {
		t.Fatal(err)
	}
	if got.Conv != m.Conv || got.Seq != 17 || got.From != m.From || got.CID != m.CID || got.Type != m.Type || got.TS != m.TS || !bytes.Equal(got.Body, body) {
		t.Errorf("read %+v", got)
	}
	tw, err := doc.twin()
	if err != nil {
		t.Fatal(err)
	}
	if !doc.isTwin(e) || tw.answer(e) != (messaging.Appended{Outcome: messaging.Known, Seq: 17, TS: m.TS}) {
		t.Errorf("a message is not its own twin: %+v", tw.answer(e))
	}
}

func TestRefusals(t *testing.T) {
	raw := func(key string) bson.Raw {
		b, err := bson.Marshal(bson.D{{Key: "keyPattern", Value: bson.D{{Key: key, Value: 1}, {Key: "cid", Value: 1}}}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	failure := func(wce *mongo.WriteConcernError, errs ...mongo.WriteError) error {
		e := mongo.BulkWriteException{WriteConcernError: wce}
		for _, we := range errs {
			e.WriteErrors = append(e.WriteErrors, mongo.BulkWriteError{WriteError: we})
		}
		return e
	}
	dup := mongo.WriteError{Index: 3, Code: 11000}
	for _, c := range []struct {
		name string
		err  error
		want []refusal // nil: an error
	}{
		{"FerretDB's duplicate", failure(nil, dup), []refusal{{index: 3, dup: dupUnknown}}},
		{"a taken number", failure(nil, mongo.WriteError{Index: 1, Code: 11000, Raw: raw("_id")}), []refusal{{index: 1, dup: dupID}}},
		{"a known message", failure(nil, mongo.WriteError{Index: 1, Code: 11000, Raw: raw("from")}), []refusal{{index: 1, dup: dupTwin}}},
		{"too large", failure(nil, mongo.WriteError{Index: 2, Code: 10334, Message: "large"}), []refusal{{index: 2, reason: "large"}}},
		{"a duplicate that is not committed", failure(&mongo.WriteConcernError{Code: 64}, dup), nil},
		{"stored and not committed", failure(&mongo.WriteConcernError{Code: 64}), nil},
		{"stepping down", failure(nil, dup, mongo.WriteError{Index: 4, Code: 189}), nil},
		{"nothing said", failure(nil), nil},
		{"network", errors.New("reset by peer"), nil},
	} {
		got, err := refusals(c.err)
		if (err == nil) != (c.want != nil) || len(got) != len(c.want) {
			t.Errorf("%s: %v, %v", c.name, got, err)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: %+v, want %+v", c.name, got[i], c.want[i])
			}
		}
	}
	if got, err := refusals(nil); got != nil || err != nil {
		t.Errorf("no error: %v, %v", got, err)
	}
}

func TestSpanClampsHostileNumbers(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	for _, c := range []struct {
		q          messaging.HistoryQuery
		lo, hi     int64
		descending bool
	}{
		{messaging.HistoryQuery{}, 1, maxSeq, true},
		{messaging.HistoryQuery{After: n(5)}, 6, maxSeq, false},
		{messaging.HistoryQuery{After: n(-1 << 63)}, 1, maxSeq, false},
		{messaging.HistoryQuery{After: n(1<<63 - 1)}, maxSeq + 1, maxSeq, false}, // nothing
		{messaging.HistoryQuery{Before: n(5)}, 1, 4, true},
		{messaging.HistoryQuery{Before: n(1<<63 - 1)}, 1, maxSeq, true},
		{messaging.HistoryQuery{Before: n(-1 << 63)}, 1, 0, true}, // nothing
	} {
		if lo, hi, d := span(c.q); lo != c.lo || hi != c.hi || d != c.descending {
			t.Errorf("%+v: %d to %d, %v", c.q, lo, hi, d)
		}
	}
}

func TestNetOfSessions(t *testing.T) {
	u, at := userid.MustParse("u"), time.UnixMilli(7)
	open := func(conn string) messaging.SessionEvent {
		return messaging.SessionEvent{Conn: conn, Edge: "e", User: u, At: at}
	}
	shut := func(conn string) messaging.SessionEvent {
		return messaging.SessionEvent{Conn: conn, Edge: "e", User: u, At: at, Closed: true}
	}
	opened, closed := net([]messaging.SessionEvent{open("a"), open("b"), shut("a"), shut("c"), open("c"), open("b")})
	if len(opened) != 2 || len(closed) != 1 {
		t.Fatalf("opened %v, closed %v", opened, closed)
	}
	if id := opened[0].(bson.D)[0].Value; id != "c" {
		t.Errorf("first opened is %v", id)
	}
}

func TestCursor(t *testing.T) {
	d := dated{"d:a:b", 1_700_000_000_000}
	if got, ok := parseCursor(d.cursor()); !ok || got != d {
		t.Errorf("%q is read as %+v, %v", d.cursor(), got, ok)
	}
	for _, bad := range []string{"x", "", "!/a", "zzzzzzzzzzzzzzzzzzzz/a"} {
		if _, ok := parseCursor(bad); ok {
			t.Errorf("%q is taken for a cursor", bad)
		}
	}
}

func TestInsertCommand(t *testing.T) {
	var entries []*entry
	for i := range 12 {
		m := messaging.NewMessage{Conv: "k", From: userid.MustParse("u"), CID: strconv.Itoa(i), Body: []byte{byte(i)}}
		entries = append(entries, &entry{msg: &m, seq: int64(i + 1)})
	}
	raw := bson.Raw(appendInsert(nil, "messages", entries, true))
	if err := raw.Validate(); err != nil {
		t.Fatal(err)
	}
	var cmd struct {
		Insert  string `bson:"insert"`
		Ordered bool   `bson:"ordered"`
		Concern struct {
			W string `bson:"w"`
			J bool   `bson:"j"`
		} `bson:"writeConcern"`
		Documents []messageDoc `bson:"documents"`
	}
	if err := bson.Unmarshal(raw, &cmd); err != nil {
		t.Fatal(err)
	}
	if cmd.Insert != "messages" || !cmd.Ordered || cmd.Concern.W != "majority" || !cmd.Concern.J || len(cmd.Documents) != len(entries) {
		t.Fatalf("command is %+v", cmd)
	}
	for i, d := range cmd.Documents {
		if d.CID != strconv.Itoa(i) || d.ID != messageID("k", int64(i+1)) {
			t.Errorf("document %d is %+v", i, d)
		}
	}
}

func TestCommandsAreCut(t *testing.T) {
	of := func(sizes ...int) (entries []*entry) {
		for _, n := range sizes {
			entries = append(entries, &entry{msg: &messaging.NewMessage{Conv: "k", Body: make([]byte, n)}})
		}
		return entries
	}
	const mib = 1 << 20
	for i, c := range []struct {
		entries []*entry
		want    int
	}{
		{of(1, 1, 1), 3}, {of(15*mib, 1), 1}, {of(1, 15*mib), 1}, {of(3*mib, 3*mib, 3*mib), 2}, {of(15 * mib), 1},
	} {
		if got := fitting(c.entries); got != c.want {
			t.Errorf("%d: %d entries fit, want %d", i, got, c.want)
		}
	}
}

// BenchmarkInsertCommand is the client's own share of a commit of 200 messages.
func BenchmarkInsertCommand(b *testing.B) {
	var entries []*entry
	for i := range 200 {
		m := messaging.NewMessage{Conv: "d:alice:bob" + strconv.Itoa(i), From: userid.MustParse("alice"), CID: "0b0e0f5a-3f0c-4c53-8f4e-" + strconv.Itoa(i), Body: make([]byte, 120)}
		entries = append(entries, &entry{msg: &m, seq: int64(i + 1)})
	}
	buf := make([]byte, 0, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		buf = appendInsert(buf[:0], "messages", entries, false)
	}
}
