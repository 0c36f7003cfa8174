/*
 * The store: how a message gets its number, and what a failover may not break.
 *
 * HOW TO READ THIS. Promela is a language for small models. A proctype is a process. The
 * processes run side by side, and spin tries every order of their steps. A line such as
 * "a == 1 -> x" is passed only once its condition holds. In if and do, one of the
 * branches (::) whose condition holds is taken, and spin tries each. What stands in
 * atomic or d_step is one step. So there are no clocks: "late", "slow" and "paused" are
 * orders of steps in which others come first, and all of them are tried.
 *
 *   here       stands for                               in the code
 *   Client     a sender that sends without waiting      shared/client/outbox.go
 *   Worker     one worker's Append of one lane's batch  worker/mongostore/append.go, cache.go
 *   Replicas   a replica set with one primary           MongoDB: {w: "majority", j: true}
 *
 * Two senders on two lanes write into the same conversation: messages 1 and 2, and
 * messages 3 and 4. Three workers are at it: two have the first lane, since the one that
 * was replaced still holds its batch and goes on.
 *
 * A RULE IS TAKEN OUT with -D and one of:
 *   ACK_BEFORE_COMMIT  acknowledge what the primary alone has
 *   NO_UNIQUE_KEY      no unique key (from, cid)
 *   NO_UNIQUE_SEQ      no unique key (conversation, seq)
 *   UNORDERED_BATCH    two messages of the conversation in one unordered insert
 *   LOCAL_LAST         the last number as the primary alone has it, and kept after an error
 *
 * BOUNDS, and so what is not proven: 1 conversation, 2 senders with 2 messages each, 3
 * workers, FAILOVERS elections, LOST answers that do not arrive (a timeout of the worker,
 * or its death and the start of another one with the same batch). A majority of the
 * replicas keeps its disks. A majority read is never behind, but the number that a
 * worker remembers is: the effect is the same.
 */

#ifndef FAILOVERS
#define FAILOVERS 2
#endif
#ifndef LOST
#define LOST 1
#endif

#define MESSAGES 4
#define FIRST(m) ((m) == 1 || (m) == 3)
#include "rules.pml"

bool sent[MESSAGES + 1];
byte lost = LOST;         /* answers that may still be lost */

/* The primary's documents in the order of its log. A majority has the first `safe`. */
#define ROOM 7
byte msgAt[ROOM];
byte seqAt[ROOM];
byte docs, safe;
byte term;                /* counts elections */

mtype = { stored, taken, known };

/* Inserts message m with number seq at the primary. taken: the unique _id has refused it,
 * known: the unique (from, cid) has; twin is the number of the document in the way then. */
inline insert(m, seq)
{
	how = stored;
	i = 0;
	do
	:: i < docs ->
		if
#ifndef NO_UNIQUE_SEQ
		:: seqAt[i] == seq -> how = taken
#endif
#ifndef NO_UNIQUE_KEY
		:: msgAt[i] == m && how != taken -> how = known; twin = seqAt[i]
#endif
		:: else
		fi;
		i++
	:: else -> break
	od;
	if
	:: how == stored -> msgAt[docs] = m; seqAt[docs] = seq; docs++
	:: else
	fi;
	upto = docs; /* the answer waits until a majority has what is there now */
	i = 0
}

/* The last number of the conversation: the highest among the first n documents. */
inline readLast(n)
{
	last = 0;
	i = 0;
	do
	:: i < n ->
		if
		:: seqAt[i] > last -> last = seqAt[i]
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0
}

proctype Client(byte first)
{
	d_step { sends(first); sent[first] = true };
	d_step { sends(first + 1); sent[first + 1] = true }
}

#define UNREAD 255

/* Stores the messages first and first+1, in order. */
proctype Worker(byte first)
{
	byte m = first;       /* the first message of the batch that is not settled */
	byte last = UNREAD;   /* the cache: a number that the conversation has reached */
	byte top;             /* the last message of the insert under way */
	byte seq;             /* its number */
	byte asked;           /* the term in which it was made */
	byte upto, twin, i;
	mtype how;
#ifdef UNORDERED_BATCH
	bool refused;
#endif

	do
	:: m > first + 1 -> break
	:: m <= first + 1 && sent[m] ->
		if
#ifdef LOCAL_LAST
		:: d_step { last == UNREAD -> readLast(docs) }
#else
		:: d_step { last == UNREAD -> readLast(safe) }
#endif
		:: last != UNREAD
		fi;

		d_step { top = m; seq = last + 1; asked = term; insert(top, seq) };
		if
		:: true /* one message in this round */
#ifdef UNORDERED_BATCH
		:: d_step { top == first && sent[first + 1] && term == asked ->
			refused = (how != stored);
			top++; seq++; insert(top, seq) }
#else
		/* An ordered insert goes on behind what was taken in, and stops at a refusal. */
		:: d_step { top == first && sent[first + 1] && term == asked && how == stored ->
			top++; seq++; insert(top, seq) }
#endif
		fi;

		if
#ifdef ACK_BEFORE_COMMIT
		:: d_step { term == asked ->
#else
		:: d_step { term == asked && safe >= upto ->
#endif
#ifdef UNORDERED_BATCH
			if /* the first was refused, the second not tried in vain: again from the first */
			:: refused -> refused = false; top = m; how = taken; seq = last
			:: else
			fi;
#endif
			if
			:: top > m -> acknowledges(m, seq - 1)
			:: else
			fi;
			m = top;
			if
			:: how == stored -> acknowledges(m, seq); last = seq; m++
			:: how == known -> acknowledges(m, twin); last = (twin >= seq -> twin : seq - 1); m++
			:: how == taken -> last = seq /* somebody was faster: the next number */
			fi;
			top = 0; seq = 0; asked = 0; upto = 0; twin = 0; how = 0 }
		:: d_step { term != asked || lost > 0 ->
			/* An error. Nothing is known of the insert: the batch is worked again. */
			if
			:: term != asked
			:: else -> lost--
			fi;
#ifndef LOCAL_LAST
			last = UNREAD;
#endif
			m = first; top = 0; seq = 0; asked = 0; upto = 0; twin = 0; how = 0 }
		fi
	od
}

/* An acknowledged message is still there. */
inline holds(m)
{
	acked_is_stored = (told[m] == 0
		|| (docs > 0 && msgAt[0] == m) || (docs > 1 && msgAt[1] == m) || (docs > 2 && msgAt[2] == m)
		|| (docs > 3 && msgAt[3] == m) || (docs > 4 && msgAt[4] == m) || (docs > 5 && msgAt[5] == m));
	assert(acked_is_stored)
}

proctype Replicas()
{
	byte m;
end:	do
	:: d_step { safe < docs -> /* a majority has one document more */
		commits(msgAt[safe], seqAt[safe]);
		safe++ }
	:: atomic { term < FAILOVERS -> /* the primary dies, or is cut off; the new one has */
		term++;                 /* what a majority had, and perhaps more */
		do
		:: docs > safe -> docs--; msgAt[docs] = 0; seqAt[docs] = 0
		:: break
		od;
		m = 1;
		do
		:: m <= MESSAGES -> holds(m); m++
		:: else -> break
		od;
		m = 0 }
	od
}

init
{
	atomic {
		run Client(1);
		run Worker(1);
#ifdef WOKEN
		run Worker(1);
#else
		run Client(3);
		run Worker(3);
#endif
		run Replicas()
	};
	/* The run is over when all is acknowledged; until then this is no end state. */
#ifdef WOKEN
	acked == (BIT(1) | BIT(2));
#else
	acked == (BIT(1) | BIT(2) | BIT(3) | BIT(4));
#endif
#ifdef SHOW_END
	never_all_resolved = false;
	assert(never_all_resolved)
#endif
}
