// Package balancers holds tests alone: the shipped configurations of nginx and HAProxy,
// loaded by the real ones, before two real edges.
//
// Each test runs on each way from a client to the edges, which are layers of balancers:
// ways_test.go. The edges, the worker and the store behind them are shared: system_test.go.
package balancers
