package main

import (
	"errors"
	"strings"
)

const ruleHead = `# The rules of alerts.yaml as an object of the Prometheus operator, which finds it by its labels
# (ruleSelector). Made of that file: make monitoring.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: wirepost
  namespace: wirepost
  labels: {app.kubernetes.io/part-of: wirepost}
spec:
`

// prometheusRule puts the groups of a rule file into the object; the text below is the same.
func prometheusRule(alerts string) ([]byte, error) {
	_, groups, found := strings.Cut(alerts, "\ngroups:\n")
	if !found {
		return nil, errors.New("alerts.yaml has no groups")
	}
	var b strings.Builder
	b.WriteString(ruleHead + "  groups:\n")
	for line := range strings.Lines(groups) {
		if line != "\n" {
			b.WriteString("  ")
		}
		b.WriteString(line)
	}
	return []byte(b.String()), nil
}
