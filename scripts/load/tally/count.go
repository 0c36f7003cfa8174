// Package tally is what a load counts and times: numbers that add up and histograms that
// merge, over seconds and over processes.
//
// It measures nothing itself and judges nothing.
package tally

import "encoding/json"

// Count names one number.
type Count int

// The counts. Those up to Pending are of now, the others only grow.
const (
	Queued  Count = iota // connections that wait for their turn
	Opening              // connections between connect and the login reply
	Online               // connections that are logged in
	Pending              // sends that somebody still waits for

	Logins     // login replies
	TurnedAway // handshakes that the server refused for now (503)
	Failed     // tries to connect that failed for another reason
	Dropped    // connections that were logged in and ended without being asked to
	Moved      // connections that were logged in and ended because their edge goes away
	Given      // connections that were given up, because a close code said so
	Resumed    // logins with a resume token that were answered resumed:true
	NotResumed // … resumed:false
	Beats      // heartbeats sent
	Answers    // heartbeats answered

	Sent      // messages that were due
	Acked     // messages whose echo came
	Delivered // copies that came to the devices of a recipient
	Twice     // copies that came once more, which the protocol allows after a fault
	Unasked   // of Twice: copies of messages that were sent only once
	Foreign   // messages that came to a device they were not for
	Refused   // messages refused for ever
	Deferred  // refusals for now
	Repeated  // sends repeated on a new connection

	Unanswered // at the end: messages neither acknowledged nor refused
	Missing    // at the end: copies of acknowledged messages that did not come

	counts
)

var names = [counts]string{
	Queued: "queued", Opening: "opening", Online: "online", Pending: "pending",
	Logins: "logins", TurnedAway: "turned_away", Failed: "failed", Dropped: "dropped", Moved: "moved", Given: "given_up",
	Resumed: "resumed", NotResumed: "not_resumed", Beats: "heartbeats", Answers: "heartbeat_answers",
	Sent: "sent", Acked: "acknowledged", Delivered: "delivered", Twice: "twice", Unasked: "twice_unasked", Foreign: "foreign",
	Refused: "refused", Deferred: "deferred", Repeated: "repeated",
	Unanswered: "unanswered", Missing: "missing",
}

func (c Count) String() string { return names[c] }

// Counts holds all of them.
type Counts [counts]int64

// Add adds those of another process.
func (c *Counts) Add(other Counts) {
	for i, n := range other {
		c[i] += n
	}
}

// MarshalJSON writes an object of names.
func (c Counts) MarshalJSON() ([]byte, error) {
	m := make(map[string]int64, len(c))
	for i, n := range c {
		m[names[i]] = n
	}
	return json.Marshal(m)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *Counts) UnmarshalJSON(b []byte) error {
	var m map[string]int64
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	for i := range c {
		c[i] = m[names[i]]
	}
	return nil
}
