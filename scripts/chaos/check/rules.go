package check

// Rule names a rule that a history must keep.
type Rule string

// The rules. "Final history" is what the members read at the end (Row records).
const (
	// Lost: a message that was acknowledged or delivered is missing in final history.
	Lost Rule = "lost"
	// Foreign: final history or the wire holds what nobody sent, or another receiver or
	// body than was sent.
	Foreign Rule = "foreign"
	// Duplicated: a message has two places, or a place has two messages.
	Duplicated Rule = "duplicated"
	// Gap: a conversation is not numbered 1…n, was not read, or differs between its readers.
	Gap Rule = "gap"
	// RealTime: a message that was known to be stored before another was sent stands behind it.
	RealTime Rule = "order in real time"
	// SenderOrder: what one device sent stands in another order than it was sent in.
	SenderOrder Rule = "order of a sender"
	// Channel: an event channel did not show exactly what history holds, in order, once.
	Channel Rule = "event channel"
	// SkippedRows: a client said that history no longer holds messages. It is never trimmed.
	SkippedRows Rule = "skipped"
	// Rights: somebody received a message of which he is neither sender nor receiver.
	Rights Rule = "foreign delivery"
	// Refused: a message that was refused for ever is in final history.
	Refused Rule = "refused"
	// Reuse: another body under a clientMsgId that was used before was not refused.
	Reuse Rule = "reuse accepted"
	// Unresolved: a send was neither acknowledged nor refused.
	Unresolved Rule = "unresolved"
	// Resolve: the gateway neither answered a send in time nor closed the connection.
	Resolve Rule = "resolve in time"
	// Hole: a message did not come on a connection that resumed, while later ones did.
	Hole Rule = "hole on the wire"
	// Poisoned: what can never succeed was not in the dead stream in time.
	Poisoned Rule = "poison"
	// DeadSend: the dead stream holds what was no poison.
	DeadSend Rule = "dead"
	// Drained: after the end of all faults and sends something still waits in the uplink.
	Drained Rule = "drained"
	// Service: sends were not resolved for too long after a fault.
	Service Rule = "service"
	// Malformed: the history contradicts itself, so it proves nothing.
	Malformed Rule = "malformed"
	// Torn: the run broke off; rules about final history were not checked.
	Torn Rule = "torn"
)

// Rules are all rules in the order in which a report shows them.
var Rules = []Rule{Lost, Foreign, Duplicated, Gap, RealTime, SenderOrder, Channel, SkippedRows, Rights, Refused, Reuse,
	Unresolved, Resolve, Hole, Poisoned, DeadSend, Drained, Service, Malformed, Torn}
