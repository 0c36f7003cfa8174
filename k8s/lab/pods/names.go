package pods

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// Names gives the names of headless Services and of their pods to everything in the box, by
// /etc/hosts, from the EndpointSlices that Kubernetes makes, as its DNS server does. Lines are
// only added, so that who reads the file meanwhile misses none. Names without a namespace
// are those of namespace.
type Names struct {
	file *os.File

	mu    sync.Mutex
	lines map[string]bool
	ready map[string][]string // addresses by slice: those that are ready
}

// NewNames returns an empty set that is written to a file.
func NewNames(path string) (*Names, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	_, err = file.WriteString("127.0.0.1 localhost\n")
	return &Names{file: file, lines: map[string]bool{}, ready: map[string][]string{}}, err
}

// Set takes a slice as it is now.
func (n *Names) Set(s *discoveryv1.EndpointSlice) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ready[s.Name] = nil
	var added strings.Builder
	for _, e := range s.Endpoints {
		if e.Conditions.Ready == nil || *e.Conditions.Ready {
			n.ready[s.Name] = append(n.ready[s.Name], e.Addresses...)
		}
		for _, line := range lines(s, e) {
			if !n.lines[line] {
				n.lines[line] = true
				fmt.Fprintln(&added, line)
			}
		}
	}
	_, err := n.file.WriteString(added.String())
	return err
}

// lines returns what hosts(5) has for an endpoint of a headless Service.
func lines(s *discoveryv1.EndpointSlice, e discoveryv1.Endpoint) (lines []string) {
	if _, headless := s.Labels["service.kubernetes.io/headless"]; !headless {
		return nil // a Service with an address of its own: nobody here answers at it
	}
	names := []string{s.Labels[discoveryv1.LabelServiceName]}
	if e.Hostname != nil {
		names = append(names, *e.Hostname+"."+names[0])
	}
	for _, address := range e.Addresses {
		for _, name := range names {
			long := name + "." + s.Namespace + ".svc"
			line := address + " " + long + " " + long + ".cluster.local"
			if s.Namespace == namespace {
				line += " " + name
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// Ready returns the addresses of a Service's endpoints that are ready, in order.
func (n *Names) Ready(service string) (addresses []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for slice, ready := range n.ready {
		if strings.HasPrefix(slice, service+"-") {
			addresses = append(addresses, ready...)
		}
	}
	slices.Sort(addresses)
	return addresses
}
