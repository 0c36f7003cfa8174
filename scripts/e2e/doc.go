// Package e2e holds the end-to-end tests: bin/edge and bin/worker as real processes, a
// real nats-server, a real store, and clients of shared/client. Each test runs on both
// stores. It holds nothing but tests.
package e2e
