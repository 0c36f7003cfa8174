package protocol

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// constants returns the exported integer constants of this package, evaluated from the
// source.
func constants(t *testing.T) map[string]int64 {
	t.Helper()
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range []string{"codes.go", "message.go", "append.go"} {
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	conf := types.Config{Importer: importer.ForCompiler(fset, "source", nil)}
	pkg, err := conf.Check("protocol", fset, files, nil)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int64{}
	for _, name := range pkg.Scope().Names() {
		c, ok := pkg.Scope().Lookup(name).(*types.Const)
		if !ok || !c.Exported() || c.Val().Kind() != constant.Int {
			continue
		}
		v, _ := constant.Int64Val(c.Val())
		found[name] = v
	}
	return found
}

func document(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	rowCell = regexp.MustCompile("(?m)^\\| (\\d+) \\| `([A-Z][A-Za-z]+)` \\|(.*)$")       // number, name
	limit   = regexp.MustCompile("(?m)^\\| `([A-Z][A-Za-z]+)` \\| (\\d+) \\|")            // name, number
	opCell  = regexp.MustCompile("(\\d+) `(Op[A-Z][A-Za-z]+)`")                           // number, name
	field   = regexp.MustCompile("(?m)^\\| `([a-zA-Z]+)` \\|")                            // first cell
	example = regexp.MustCompile("(?s)```json\\s*(.*?)```")                               // one message each
	anyRow  = regexp.MustCompile(`(?m)^\| (\d+)(?:, (\d+))? \|[^|]*\| (yes|no)(?:,| \|)`) // close codes without a name too
)

// Every constant is in the document with its value, and the document knows no other.
func TestDocumentHasEveryNumber(t *testing.T) {
	doc, code := document(t), constants(t)
	said := map[string]int64{}
	say := func(name, number string) {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if old, twice := said[name]; twice && old != n {
			t.Errorf("PROTOCOL.md says %s is %d and %d", name, old, n)
		}
		said[name] = n
	}
	for _, m := range rowCell.FindAllStringSubmatch(doc, -1) {
		say(m[2], m[1])
		for _, op := range opCell.FindAllStringSubmatch(m[3], -1) {
			say(op[2], op[1])
		}
	}
	for _, m := range limit.FindAllStringSubmatch(doc, -1) {
		say(m[1], m[2])
	}
	for name, n := range code {
		if got, ok := said[name]; !ok {
			t.Errorf("PROTOCOL.md lacks %s = %d", name, n)
		} else if got != n {
			t.Errorf("PROTOCOL.md says %s is %d, the code says %d", name, got, n)
		}
	}
	for name := range said {
		if _, ok := code[name]; !ok {
			t.Errorf("PROTOCOL.md names %s, which the code has not", name)
		}
	}
}

func TestDocumentSaysWhatReconnectDoes(t *testing.T) {
	rows := 0
	for _, line := range strings.Split(document(t), "\n") {
		m := anyRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		for _, number := range m[1:3] {
			if number == "" {
				continue
			}
			rows++
			code, _ := strconv.Atoi(number)
			again, newToken := Reconnect(code)
			if again != (m[3] == "yes") || newToken != strings.Contains(line, "with a new token") {
				t.Errorf("close code %d: the code says reconnect %v, new token %v; PROTOCOL.md: %s", code, again, newToken, line)
			}
		}
	}
	if rows < 15 {
		t.Errorf("only %d close codes found", rows)
	}
}

// Every field of every JSON object is named.
func TestDocumentNamesEveryField(t *testing.T) {
	doc := document(t)
	rows := map[string]bool{}
	for _, m := range field.FindAllStringSubmatch(doc, -1) {
		rows[m[1]] = true
	}
	for _, v := range []any{Message{}, LoginRequest{}, LoginReply{}} {
		for _, name := range jsonFields(v) {
			if !rows[name] {
				t.Errorf("%T: no table row of PROTOCOL.md is about %s", v, name)
			}
		}
	}
	for _, v := range []any{HistoryRequest{}, HistoryReply{}, ConversationsRequest{}, ConversationsReply{}, Conversation{}, SyncRequest{}, SyncReply{}} {
		for _, name := range jsonFields(v) {
			if !strings.Contains(doc, "`"+name+"`") && !strings.Contains(doc, `"`+name+`"`) {
				t.Errorf("%T: PROTOCOL.md does not mention %s", v, name)
			}
		}
	}
	if !strings.Contains(doc, "`"+Subprotocol+"`") || !strings.Contains(doc, TokenSubprotocol+"<token>") {
		t.Error("PROTOCOL.md lacks a subprotocol")
	}
}

func jsonFields(v any) []string {
	var names []string
	for f := range reflect.TypeOf(v).Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// Every example is a message of this package, and nothing in it is unknown.
func TestDocumentExamples(t *testing.T) {
	all := example.FindAllStringSubmatch(document(t), -1)
	if len(all) < 10 {
		t.Fatalf("only %d examples found", len(all))
	}
	for _, m := range all {
		var msg Message
		if err := strict(m[1], &msg); err != nil {
			t.Errorf("%v: %s", err, m[1])
			continue
		}
		if len(msg.MsgBody) == 0 || msg.MsgType == Business && msg.BizType == BizChat {
			continue
		}
		var bodies []any
		switch {
		case msg.MsgType == Login:
			bodies = []any{&LoginRequest{}, &LoginReply{}}
		case msg.BizOptModule == OpHistory:
			bodies = []any{&HistoryRequest{}, &HistoryReply{}}
		case msg.BizOptModule == OpConversations:
			bodies = []any{&ConversationsRequest{}, &ConversationsReply{}}
		case msg.BizOptModule == OpSync:
			bodies = []any{&SyncRequest{}, &SyncReply{}}
		}
		fits := false
		for _, b := range bodies {
			fits = fits || strict(string(msg.MsgBody), b) == nil
		}
		if !fits {
			t.Errorf("body of no known kind: %s", m[1])
		}
	}
}

func strict(s string, into any) error {
	dec := json.NewDecoder(bytes.NewReader([]byte(s)))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}
