// Package streams creates what the system needs of JetStream, and creates it again when
// it is gone: the uplink lanes with their consumers, the downlink shards, the dead
// stream, and the workers' key-value buckets.
//
//	UP_<lane>                      im.up.<lane>.>     work queue, discard new, one pinned consumer "work"
//	                                                  first sequence by time: see stream.FirstSeq
//	DOWN_<shards>_<epoch>_<shard>  im.down.<shard>.>  limits by age and bytes, direct gets, republished
//	                               im.mark.<shard>.*  to im.live.<shard>.>
//	DEAD                           im.dead.>          limits, the oldest go first
//	KV workers, suspects
//
// It is idempotent, and any number of workers may run it at once. It never deletes a
// stream and never changes what a stream means: where an existing one does not fit, it
// says which field of which stream (Conflict).
//
// An epoch is one incarnation of one downlink shard. It is random, it is in the stream's
// name, and it is drawn when no stream holds the shard's subjects. Workers do so one
// after the other, under a lock in the bucket workers; the others take the first one's
// stream.
//
// To change the number of shards, stop the workers, delete the streams DOWN_*, and start
// the workers and the edges with the new number (an edge whose number differs from that
// in the streams' names refuses to serve): they create streams with new names and so with new epochs, and every edge
// tells its clients to re-sync. What was stored in the old ones is lost to resume alone;
// history is in the store. To change the number of lanes, stop the edges first and let
// the workers empty the lanes: a user's lane depends on the number.
package streams
