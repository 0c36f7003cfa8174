// Command make writes what k8s/monitoring has that is made of something else: the dashboard,
// of the list of panels here, and the object PrometheusRule, of alerts.yaml. make monitoring
// runs it, a test compares.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/wirepost/wirepost/scripts/checkout"
	"github.com/wirepost/wirepost/scripts/monitoring"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	made, err := files()
	if err != nil {
		return err
	}
	for name, text := range made {
		if err := os.WriteFile(filepath.Join(root, name), text, 0o644); err != nil {
			return err
		}
		fmt.Println(name)
	}
	return nil
}

// files returns what is made, by name.
func files() (map[string][]byte, error) {
	dash, err := dashboard()
	if err != nil {
		return nil, err
	}
	alerts, err := monitoring.Read("k8s/monitoring/alerts.yaml")
	if err != nil {
		return nil, err
	}
	rule, err := prometheusRule(alerts)
	return map[string][]byte{
		"k8s/monitoring/dashboard.json":      dash,
		"k8s/monitoring/prometheusrule.yaml": rule,
	}, err
}
