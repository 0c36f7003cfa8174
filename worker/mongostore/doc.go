// Package mongostore keeps messages, conversations, members and sessions in MongoDB, or
// in a store that speaks its protocol (FerretDB). It implements messaging.Store.
//
// How a message gets its place: there is no counter and no lock in the store. A message
// is inserted with the _id "<conv>/<last+1>"; when somebody else was faster the unique
// _id refuses it, and the next number is tried. So a conversation's numbers have no gap
// and no double, whoever writes.
//
//	messages   in order ──► groups, one a conversation ──► rounds
//
//	a round    1. take the conversations that no other Append of this process writes to
//	           2. their last numbers: from the cache, else by a majority read
//	           3. conversations with few messages: the next message of each, in one
//	              unordered insert, which those of other Appends join (joined.go); those
//	              with many: an ordered insert of their own
//	           4. what was refused: by (from, cid) it is a twin, stored before;
//	              by _id the number is taken, and the next round tries the next one
//
// A message never overtakes one of its conversation that failed: an unordered insert
// holds one message a conversation at most, an ordered one stops at the failure.
//
// It never trusts a last number that is not committed: the cache is fed by majority
// reads, by inserts that a majority has acknowledged, and by duplicate keys without a
// write-concern error; any other error drops the conversation from the cache.
//
// It never decides what a message means, and it never retries for ever: an error goes to
// the caller, who repeats the whole call.
package mongostore
