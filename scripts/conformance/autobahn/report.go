package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"

	"github.com/wirepost/wirepost/scripts/conformance"
)

// agent is what the suite calls the server.
const agent = "wirepost"

// The verdicts that are taken.
const (
	ok            = "OK"
	informational = "INFORMATIONAL"
)

// noOpinion are the cases for which the suite knows no other verdict than INFORMATIONAL:
// what the specification leaves open. Package conformance demands one outcome of each.
var noOpinion = map[string]string{
	"7.1.6":  "messages, a close frame and a ping behind them, at once",
	"7.13.1": "close code 5000",
	"7.13.2": "close code 65535",
}

// result is the suite's verdict about one case: what was sent and received, and how the
// connection was closed.
type result struct {
	Behavior      string `json:"behavior"`
	BehaviorClose string `json:"behaviorClose"`
}

// specOf is the fuzzing client's configuration.
func specOf(out, url string) []byte {
	spec, err := json.Marshal(map[string]any{
		"outdir":              out,
		"servers":             []map[string]string{{"agent": agent, "url": url}},
		"cases":               []string{"1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"},
		"exclude-cases":       []string{},
		"exclude-agent-cases": map[string]any{},
	})
	if err != nil {
		panic(err) // maps of strings
	}
	return spec
}

// readResults reads the suite's index: results by case.
func readResults(path string) (map[string]result, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	var agents map[string]map[string]result
	if err := json.Unmarshal(data, &agents); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	results, found := agents[agent]
	if !found || len(agents) != 1 {
		return nil, fmt.Errorf("the report is about %d agents, not %s alone", len(agents), agent)
	}
	return results, nil
}

// judge says of each case what is wrong with it, missing ones and unknown ones included.
func judge(results map[string]result) error {
	var wrong []error
	ours := conformance.Cases()
	known := map[string]bool{}
	for _, c := range ours {
		known[c.ID] = true
		r, ran := results[c.ID]
		if !ran {
			wrong = append(wrong, fmt.Errorf("%s did not run", c.ID))
			continue
		}
		want := ok
		if noOpinion[c.ID] != "" {
			want = informational
		}
		if r.Behavior != want || r.BehaviorClose != want {
			wrong = append(wrong, fmt.Errorf("%s: %s, close %s, want %s", c.ID, r.Behavior, r.BehaviorClose, want))
		}
	}
	for id := range results {
		if !known[id] {
			wrong = append(wrong, fmt.Errorf("%s ran and is not in the table of package conformance", id))
		}
	}
	return errors.Join(wrong...)
}

var suiteVersion = regexp.MustCompile(`(?i)AutobahnTestSuite\s+v?(\d[\w.]*)`)

// parseVersion takes the suite's version out of what wstest prints.
func parseVersion(out string) (string, error) {
	m := suiteVersion.FindStringSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("wstest tells no version: %.200q", out)
	}
	return m[1], nil
}
