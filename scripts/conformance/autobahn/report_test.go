package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wirepost/wirepost/scripts/conformance"
)

// perfect is a report in which everything is right.
func perfect() map[string]result {
	results := map[string]result{}
	for _, c := range conformance.Cases() {
		results[c.ID] = result{ok, ok}
		if noOpinion[c.ID] != "" {
			results[c.ID] = result{informational, informational}
		}
	}
	return results
}

func TestJudge(t *testing.T) {
	if err := judge(perfect()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(map[string]result)
		want   string
	}{
		"failed":                {func(r map[string]result) { r["1.1.1"] = result{"FAILED", ok} }, "1.1.1: FAILED, close OK"},
		"non-strict":            {func(r map[string]result) { r["3.2"] = result{"NON-STRICT", ok} }, "3.2: NON-STRICT"},
		"wrong code":            {func(r map[string]result) { r["7.7.1"] = result{ok, "WRONG CODE"} }, "7.7.1: OK, close WRONG CODE"},
		"closed by the client":  {func(r map[string]result) { r["2.1"] = result{ok, "FAILED BY CLIENT"} }, "2.1: OK, close FAILED BY CLIENT"},
		"informational, not OK": {func(r map[string]result) { r["2.1"] = result{informational, informational} }, "2.1: INFORMATIONAL"},
		"missing":               {func(r map[string]result) { delete(r, "9.8.6") }, "9.8.6 did not run"},
		"unknown":               {func(r map[string]result) { r["11.1"] = result{ok, ok} }, "11.1 ran"},
	} {
		r := perfect()
		c.change(r)
		if err := judge(r); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadResults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.json")
	write := func(v any) {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(map[string]any{agent: perfect()})
	results, err := readResults(path)
	if err != nil || len(results) != 301 {
		t.Fatalf("%d results, %v", len(results), err)
	}
	for _, wrong := range []any{map[string]any{}, map[string]any{"other": perfect()}, map[string]any{agent: perfect(), "other": nil}, "x"} {
		write(wrong)
		if _, err := readResults(path); err == nil {
			t.Errorf("%.60v was taken", wrong)
		}
	}
	if _, err := readResults(path + "x"); err == nil {
		t.Error("a missing report was taken")
	}
}

func TestTable(t *testing.T) {
	r := perfect()
	r["5.1"] = result{"FAILED", ok}
	table := tableOf(r)
	for _, row := range []string{"| 5 fragmentation | 20 | 19 | 0 | 1 |\n", "| 7 close handling | 37 | 34 | 3 | 0 |\n", "| **all** | 301 | 297 | 3 | 1 |\n"} {
		if !strings.Contains(table, row) {
			t.Errorf("no row %q in\n%s", row, table)
		}
	}
	path := filepath.Join(t.TempDir(), "x.md")
	for before, after := range map[string]string{
		"a\n" + begin + "old\n" + end + "b\n": "a\n" + begin + table + end + "b\n",
		"a\n" + begin + "old\n":               "",
		"a\n":                                 "",
	} {
		if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		err := renew(path, table)
		data, _ := os.ReadFile(path)
		if after == "" && (err == nil || string(data) != before) || after != "" && (err != nil || string(data) != after) {
			t.Errorf("%q became %.80q, %v", before, data, err)
		}
	}
}

func TestVersion(t *testing.T) {
	for out, want := range map[string]string{
		"Autobahn 0.10.9\nAutobahnTestSuite 0.8.2\n": "0.8.2",
		"Autobahn 0.10.9\n":                          "",
		"":                                           "",
	} {
		if got, err := parseVersion(out); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", out, got, err)
		}
	}
}
