package envelope

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// shared/NATS.md is for people who cannot read this code: it must say what the code does.
func natsDocument(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../NATS.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// firstCells are the names in the first column of the document's tables.
func firstCells(doc string) []string {
	var cells []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(doc, -1) {
		cells = append(cells, m[1])
	}
	return cells
}

func TestDocumentHasTheSubjects(t *testing.T) {
	cells := firstCells(natsDocument(t))
	id := userid.MustParse("USER")
	var want []string
	for form, built := range map[string]string{
		"im.up.<lane>.<user>":    subject.Up(7, id),
		"im.down.<shard>.<user>": subject.Down(7, id),
		"im.live.<shard>.<user>": subject.Live(7, id),
		"im.mark.<shard>.<edge>": subject.Mark(7, "USER"),
		"im.dead.<lane>.<user>":  subject.Dead(7, id),
	} {
		filled := strings.NewReplacer("<lane>", "7", "<shard>", "7", "<user>", "USER", "<edge>", "USER").Replace(form)
		if filled != built {
			t.Errorf("the code builds %s, the document's form is %s", built, form)
		}
		want = append(want, form)
	}
	for _, form := range want {
		if !slices.Contains(cells, form) {
			t.Errorf("NATS.md lacks %s", form)
		}
	}
	for _, c := range cells {
		if strings.HasPrefix(c, "im.") && strings.Contains(c, "<") && !slices.Contains(want, c) {
			t.Errorf("NATS.md has %s, which the code does not build", c)
		}
	}
}

func TestDocumentHasTheHash(t *testing.T) {
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| `([^`]+)` \\| (\\d+) \\| (\\d+) \\| (\\d+) \\|").FindAllStringSubmatch(natsDocument(t), -1)
	if len(rows) < 5 {
		t.Fatalf("only %d examples", len(rows))
	}
	for _, r := range rows {
		id := userid.MustParse(r[1])
		all := subject.Lane(id, 1<<32-1) // the hash itself, unless it is 2³²−1
		lane, shard := subject.Lane(id, stream.DefaultLanes), subject.Shard(id, stream.DefaultShards)
		if id.Token() != r[2] || strconv.Itoa(all) != r[3] || strconv.Itoa(lane) != r[4] || strconv.Itoa(shard) != r[5] {
			t.Errorf("the code says %s, %d, %d, %d; NATS.md says %v", id.Token(), all, lane, shard, r[1:])
		}
	}
}

func TestDocumentHasTheHeaders(t *testing.T) {
	cells := firstCells(natsDocument(t))
	e := Event{Type: Frame, Edge: "e", Conn: "c", N: 1, Time: time.Now(), Reason: "r", Trace: "t", After: 1}
	known := []string{Target, Echo}
	for h := range e.Header() {
		known = append(known, h)
	}
	for _, h := range known {
		if !slices.Contains(cells, h) {
			t.Errorf("NATS.md lacks the header %s", h)
		}
	}
	for _, c := range cells {
		if strings.HasPrefix(c, "ce-") && c != "ce-type" && !slices.Contains(known, c) {
			t.Errorf("NATS.md has the header %s, which the code has not", c)
		}
	}
	for _, typ := range []Type{Connected, Frame, Disconnected} {
		if !slices.Contains(cells, string(typ)) {
			t.Errorf("NATS.md lacks the type %s", typ)
		}
	}
	doc := natsDocument(t)
	for _, r := range []string{ReasonClientClose, ReasonPingTimeout, ReasonSlow, ReasonKicked, ReasonExpired, ReasonDrain, ReasonEdgeLost, ReasonProtocol, ReasonUplink} {
		if !strings.Contains(doc, "`"+r+"`") {
			t.Errorf("NATS.md lacks the reason %s", r)
		}
	}
	for _, s := range []string{"/edges/<edge>/conns/<conn>", "`<conn>-<n>`", "`deviceId`", "`addr`"} {
		if !strings.Contains(doc, s) {
			t.Errorf("NATS.md lacks %s", s)
		}
	}
}

func TestDocumentHasTheStreams(t *testing.T) {
	doc := natsDocument(t)
	cells := firstCells(doc)
	for form, built := range map[string]string{
		"UP_<lane>":                     stream.Up(7),
		"DOWN_<shards>_<epoch>_<shard>": stream.DownName{Shards: 9, Epoch: "ab3", Shard: 7}.String(),
		"DEAD":                          stream.Dead,
	} {
		filled := strings.NewReplacer("<lane>", "7", "<shards>", "9", "<epoch>", "ab3", "<shard>", "7").Replace(form)
		if filled != built || !slices.Contains(cells, form) {
			t.Errorf("the code says %s; NATS.md must have %s", built, form)
		}
	}
	for _, s := range []string{
		"(`" + stream.Consumer + "`, group `" + stream.Group + "`)",
		"`" + stream.Workers + "`", "`" + stream.Suspects + "`",
		"default " + strconv.Itoa(stream.DefaultLanes) + ")", "(default " + strconv.Itoa(stream.DefaultShards) + ")",
		"`" + strings.Replace(subject.UpLane(7), "7", "<lane>", 1) + "`",
		"`" + strings.Replace(subject.DownShard(7), "7", "<shard>", 1) + "`, `" + strings.Replace(subject.MarkShard(7), "7", "<shard>", 1) + "`",
		"from `" + strings.Replace(subject.RepublishFrom(7), "7", "<shard>", 1) + "` to `" + strings.Replace(subject.RepublishTo(7), "7", "<shard>", 1) + "`",
		"`" + subject.DeadAll() + "`",
	} {
		if !strings.Contains(doc, s) {
			t.Errorf("NATS.md lacks %s", s)
		}
	}
}
