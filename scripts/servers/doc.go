// Package servers starts the real neighbours of an edge and a worker: a nats-server with
// JetStream and FerretDB (SQLite) inside this process, and a real mongod beside it. Tests
// and the development process use the same code.
//
// Everything listens on 127.0.0.1 only. Nothing here is linked into an edge or a worker.
//
// A test package that asks for Mongo shares one mongod over all of its tests when its
// TestMain is
//
//	func TestMain(m *testing.M) { servers.Main(m) }
//
// and starts one for each test otherwise, which costs about two seconds a test.
package servers
