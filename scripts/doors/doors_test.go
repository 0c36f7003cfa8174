// Package doors holds no code, only the tests of what no compiler checks: which room
// may import which, what each binary links, and the habits of the tree. It reads
// sources and the go command's lists; it never runs the system.
package doors

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const root = "github.com/wirepost/wirepost/"

// pkg is what go list tells of a package of ours.
type pkg struct {
	ImportPath, Dir, Doc, Name               string
	GoFiles, IgnoredGoFiles                  []string
	TestGoFiles, XTestGoFiles                []string
	Imports, TestImports, XTestImports, Deps []string
}

// path is the import path below the root, such as "edge/loop".
func (p pkg) path() string { return strings.TrimPrefix(p.ImportPath, root) }

// tree lists all packages of the workspace, once.
var tree = sync.OnceValues(func() ([]pkg, error) {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Doc,Name,GoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports,Deps",
		"./edge/...", "./worker/...", "./shared/...", "./scripts/...")
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
		all = append(all, p)
	}
})

func packages(t *testing.T) []pkg {
	t.Helper()
	all, err := tree()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages", len(all))
	}
	return all
}

// A room in a pattern stands for itself and what is below it.
func in(path, room string) bool { return path == room || strings.HasPrefix(path, room+"/") }

const (
	gobwas     = "github.com/gobwas/ws"
	nats       = "github.com/nats-io/nats.go"
	natsServer = "github.com/nats-io/nats-server"
	mongo      = "go.mongodb.org/mongo-driver"
	ferret     = "github.com/FerretDB"
	otel       = "go.opentelemetry.io/otel"
)

// doors: who must not link what, directly or through others. Tests of a room may
// import more, but shared's and the edge's keep away from the big servers.
var doors = []struct {
	room  string
	never []string
	why   string
}{
	{"shared", []string{root + "edge", root + "worker", root + "scripts", otel}, "shared is used by both sides"},
	{"edge", []string{root + "worker", root + "scripts", mongo, ferret, natsServer, otel}, "the edge is thin: no store, no business, no server, no spans"},
	{"worker", []string{root + "edge", root + "scripts", ferret, natsServer, gobwas}, "the worker holds no sockets, and servers are linked by scripts alone"},
	{"edge/loop", []string{gobwas, nats, root + "shared", root + "edge/socket", root + "edge/handshake"}, "the loop knows file descriptors alone"},
	{"edge/uplink", []string{root + "edge/downlink", root + "edge/socket", gobwas}, "up and down are two stations"},
	{"edge/downlink", []string{root + "edge/uplink", root + "edge/socket", gobwas}, "up and down are two stations"},
	{"edge/feed", []string{root + "edge/downlink", root + "edge/uplink", root + "edge/socket", root + "edge/users", gobwas}, "it knows subscriptions, and nothing of what they are for"},
	{"edge/users", []string{nats, gobwas}, "a table"},
	{"edge/handshake", []string{nats}, "a parser"},
	{"edge/proxyproto", []string{nats, gobwas, root + "shared"}, "a parser"},
	{"edge/attempts", []string{nats, gobwas, root + "shared", root + "edge/socket"}, "it knows addresses and times alone"},
	{"edge/memory", []string{nats, gobwas, root + "shared", root + "edge/socket"}, "it knows the runtime alone"},
	{"edge/auth", []string{nats, gobwas}, "it knows tokens alone"},
	{"worker/messaging", []string{nats, mongo, otel}, "the business knows neither the carrier nor the store, nor that it is watched"},
	{"worker/tracing", []string{mongo, root + "worker/mongostore", root + "worker/delivery"}, "it stands around the seams, and knows nothing behind them"},
	{"worker/mongostore", []string{nats, otel, root + "worker/lane", root + "worker/delivery"}, "the store knows no carrier"},
	{"worker/lane", []string{mongo, otel, root + "worker/mongostore", root + "worker/delivery"}, "the carrier knows no store"},
	{"worker/delivery", []string{mongo, otel, root + "worker/mongostore"}, "the carrier knows no store"},
	{"shared/userid", []string{nats, gobwas}, "a type"},
	{"shared/subject", []string{nats, gobwas}, "strings"},
	{"shared/stream", []string{nats, gobwas}, "strings"},
	{"shared/envelope", []string{nats, gobwas}, "a plain map is enough"},
	{"shared/protocol", []string{nats, gobwas}, "the protocol knows no carrier"},
	{"shared/client", []string{nats, mongo}, "a client talks WebSocket"},
	{"scripts/load/wire", []string{nats, mongo, natsServer, root + "shared", root + "edge", root + "worker"}, "it measures any WebSocket server, by nothing of what is measured"},
	{"scripts/load/agent", []string{nats, mongo, natsServer, root + "edge", root + "worker"}, "a client knows the protocol alone"},
}

func TestDoors(t *testing.T) {
	all := packages(t)
	for _, d := range doors {
		found := false
		for _, p := range all {
			if !in(p.path(), d.room) {
				continue
			}
			found = true
			links := slices.Concat(p.Deps, p.TestImports, p.XTestImports)
			for _, never := range d.never {
				if i := slices.IndexFunc(links, func(s string) bool { return in(s, never) }); i >= 0 {
					t.Errorf("%s must not link %s: %s", p.path(), links[i], d.why)
				}
			}
		}
		if !found {
			t.Errorf("the door of %s guards nothing: there is no such room", d.room)
		}
	}
}

// TestEveryPackageIsGuarded: a room that is not on the list has no door of its own, but
// its module has one.
func TestEveryPackageIsGuarded(t *testing.T) {
	for _, p := range packages(t) {
		if !slices.ContainsFunc([]string{"edge", "worker", "shared", "scripts"}, func(m string) bool { return in(p.path(), m) }) {
			t.Errorf("%s is in no module that the doors know", p.ImportPath)
		}
	}
}

func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) == 0 {
			continue // a room of tests; its comment stands in a test file and godoc shows none
		}
		start := "Package " + p.Name
		if p.Name == "main" {
			start = ""
		}
		if p.Doc == "" || !strings.HasPrefix(p.Doc, start) {
			t.Errorf("%s has no package comment that begins with %q", p.path(), start)
		}
	}
}

// TestSubjects: no other room builds a subject (shared/subject does), a stream's name
// (shared/stream) or reads the environment (shared/process).
func TestSubjectsAndEnvironment(t *testing.T) {
	files := 0
	for _, p := range packages(t) {
		for _, name := range p.GoFiles {
			files++
			path := p.path() + "/" + name
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			if p.path() != "shared/subject" {
				for _, s := range subjects(file) {
					t.Errorf("%s builds the subject %q: only shared/subject does", path, s)
				}
			}
			scripts := in(p.path(), "scripts")
			if !scripts && path != "shared/process/env.go" && readsEnvironment(file) {
				t.Errorf("%s reads the environment: only shared/process/env.go does", path)
			}
			if !scripts && slices.ContainsFunc(file.Imports, imports("testing")) {
				t.Errorf("%s links package testing", path)
			}
		}
	}
	if files < 20 {
		t.Errorf("only %d files were read", files)
	}
}

// subjects returns the string literals of a file that begin like a subject or a
// downlink or uplink stream. CloudEvents types ("im.frame") are none of them.
func subjects(file *ast.File) []string {
	begins := []string{"im.up.", "im.down.", "im.mark.", "im.live.", "im.dead.", "im.topic.", "im.app.", "im.up%", "im.live%"}
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		lit, ok := n.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		s, err := strconv.Unquote(lit.Value)
		if err == nil && slices.ContainsFunc(begins, func(b string) bool { return strings.HasPrefix(s, b) }) {
			found = append(found, s)
		}
		return true
	})
	return found
}

func readsEnvironment(file *ast.File) bool {
	names := []string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}
	found := slices.ContainsFunc(file.Imports, imports("github.com/caarlos0/env/v11"))
	ast.Inspect(file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			id, ok := sel.X.(*ast.Ident)
			found = found || ok && (id.Name == "os" || id.Name == "syscall") && slices.Contains(names, sel.Sel.Name)
		}
		return true
	})
	return found
}

func imports(path string) func(*ast.ImportSpec) bool {
	return func(s *ast.ImportSpec) bool { return s.Path.Value == strconv.Quote(path) }
}

// TestChecksBite: the checks above find what they look for.
func TestChecksBite(t *testing.T) {
	const source = `package x
import "os"
var a, b = os.Getenv("A"), "im.up." + "x"
var fine = "im.frame"
`
	file, err := parser.ParseFile(token.NewFileSet(), "x.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !readsEnvironment(file) {
		t.Error("os.Getenv was not found")
	}
	if got := subjects(file); !slices.Equal(got, []string{"im.up."}) {
		t.Errorf("subjects %q", got)
	}
	if !in("edge/loop", "edge") || in("edges", "edge") || !in("edge", "edge") {
		t.Error("a room is not what it stands for")
	}
}

// TestNoInternal: design section 5, scripts builds on the rooms of the others.
func TestNoInternal(t *testing.T) {
	for _, p := range packages(t) {
		if strings.Contains("/"+p.path()+"/", "/internal/") {
			t.Errorf("%s: no internal folders", p.path())
		}
	}
}
