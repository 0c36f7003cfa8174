/*
 * The rules: what must hold in every run. lane.pml and store.pml include this file.
 *
 * They are the rules of the checker that reads the histories of a chaos run, put for a
 * handful of messages. Each has a name; when spin finds a run that breaks one, it says
 * "assertion violated <name>".
 *
 *   once             (sender, clientMsgId) is in the history at most once
 *   gapless          a conversation's numbers are 1, 2, 3, … without a hole or a double
 *   sender_order     a sender's messages have the order in which they were sent
 *   ack_before_send  what was sent after m was acknowledged stands behind m
 *   acked_is_stored  an acknowledged message is in the store for ever
 *   one_number       all acknowledgements of a message carry the number in the store
 *   frame_is_there   the recipient of an acknowledged message gets its frame (lane.pml)
 *
 * That every send is resolved is no assertion. A client that waits for an
 * acknowledgement for ever makes spin say "invalid end state", and a run that never ends
 * makes it say "non-progress cycle".
 *
 * The history is what a majority of the store has. Messages are numbered from 1 to
 * MESSAGES; the including file says which are the first of their sender: FIRST(m).
 */

byte count;                   /* messages in the history */
byte number[MESSAGES + 1];    /* the seq of message m in the history; 0: it is not there */
byte told[MESSAGES + 1];      /* the seq in its acknowledgement; 0: none yet */
byte present;                 /* the history as a set of bits, one a message */
byte acked;                   /* the acknowledged messages, likewise */
byte before[MESSAGES + 1];    /* what was acknowledged when m was sent, likewise */

/* They are true until a rule is broken. As variables they lend spin their names. */
bool once = true, gapless = true, sender_order = true, ack_before_send = true;
bool acked_is_stored = true, one_number = true, frame_is_there = true;

/* With -DSHOW_END the end of a run breaks a rule: spin must find that it is reached. */
#ifdef SHOW_END
bool never_all_resolved = true;
#endif

#define BIT(m)  (1 << (m))

/* A client sends m for the first time. */
inline sends(m)
{
	before[m] = acked
}

/* A majority of the store has m with number seq: it is history. */
inline commits(m, seq)
{
	once = (number[m] == 0);
	assert(once);
	gapless = (seq == count + 1);
	assert(gapless);
	sender_order = (FIRST(m) || number[m - 1] != 0);
	assert(sender_order);
	ack_before_send = ((before[m] & present) == before[m]);
	assert(ack_before_send);
	number[m] = seq;
	count++;
	present = present | BIT(m);
	one_number = (told[m] == 0 || told[m] == number[m]);
	assert(one_number)
}

/* A client sees its message m come back with a number: that is the acknowledgement. */
inline acknowledges(m, seq)
{
	one_number = ((told[m] == 0 || told[m] == seq) && (number[m] == 0 || number[m] == seq));
	assert(one_number);
	told[m] = seq;
	acked = acked | BIT(m)
}
