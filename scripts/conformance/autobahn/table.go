package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/wirepost/wirepost/scripts/conformance"
)

// groups are the suite's, in its words.
var groups = []struct {
	n    int
	name string
}{
	{1, "framing"}, {2, "pings and pongs"}, {3, "reserved bits"}, {4, "opcodes"}, {5, "fragmentation"},
	{6, "UTF-8"}, {7, "close handling"}, {9, "limits"}, {10, "auto-fragmentation"},
}

// tableOf counts verdicts by group, as Markdown.
func tableOf(results map[string]result) string {
	var b strings.Builder
	b.WriteString("| Group | Cases | OK | Informational | Not OK |\n|---|---:|---:|---:|---:|\n")
	var all [4]int
	row := func(name string, n [4]int) {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d |\n", name, n[0], n[1], n[2], n[3])
	}
	for _, g := range groups {
		var n [4]int
		for id, r := range results {
			if (conformance.Case{ID: id}).Group() != g.n {
				continue
			}
			n[0]++
			switch {
			case r.Behavior == ok && r.BehaviorClose == ok:
				n[1]++
			case noOpinion[id] != "" && r.Behavior == informational && r.BehaviorClose == informational:
				n[2]++
			default:
				n[3]++
			}
		}
		row(fmt.Sprintf("%d %s", g.n, g.name), n)
		for i := range all {
			all[i] += n[i]
		}
	}
	row("**all**", all)
	return b.String()
}

// The table of a document stands between these lines.
const (
	begin = "<!-- autobahn -->\n"
	end   = "<!-- /autobahn -->\n"
)

// renew puts text into a document in place of what stands between begin and end.
func renew(path, text string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("renew table: %w", err)
	}
	head, rest, found := strings.Cut(string(data), begin)
	_, tail, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("renew table: %s has no lines %q and %q", path, begin, end)
	}
	if err := os.WriteFile(path, []byte(head+begin+text+end+tail), 0o644); err != nil {
		return fmt.Errorf("renew table: %w", err)
	}
	return nil
}
