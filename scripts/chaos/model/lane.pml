/*
 * The way of a send: client, edge, lane, worker, and back. How order survives crashes,
 * pauses, take-overs and retries, and how every send is resolved.
 *
 * How to read Promela stands at the head of store.pml.
 *
 *   here       stands for                                       in the code
 *   Client     a sender with an outbox, sends without waiting   shared/client/outbox.go
 *   Edge       the edge of one connection of that client        edge/socket/gateway.go, edge/uplink
 *   Consumer   the lane's work queue and its pinned consumer    JetStream: UP_<lane>
 *   Worker     one worker's tenure of the lane, and its work    worker/lane/tenure.go, work.go
 *              on a message: store, publish, acknowledge        worker/messaging/messaging.go
 *   Faults     what goes wrong
 *
 * One sender writes MESSAGES messages to one recipient. The store is the simplest that
 * keeps the rules of store.pml: it commits in one step.
 *
 * A pause is no state of its own. A process that is not chosen for long is paused: a
 * worker may take each of its steps at any later time, with what it fetched before.
 *
 * A RULE IS TAKEN OUT with -D and one of:
 *   UPACK_BEFORE_DOWNACK  acknowledge to the lane before the downlink has the frames
 *   NO_UNIQUE_KEY         no unique key (from, cid)
 *   NO_RESET              a take-over goes on where the last owner was
 *   WOKEN_OWNER           an owner that wakes up and is pinned again goes on with its run
 *   BROKEN_RUN            a worker goes on with its run when a delivery is missing
 *   PIPELINED             an edge has two publishes of a connection in flight
 *   DISCARD_OLD           a full lane deletes its oldest message
 *   MSGID_DEDUP           the client's id is the broker's Nats-Msg-Id
 *   SAME_NUMBERS          a lane that is made again counts from 1 again
 *   FRAME_BEHIND_LOSS     a worker works a frame whose predecessor is in a lost lane
 *   STAY_CONNECTED        an edge keeps a connection whose lane was made again
 *   HOLE_ACCEPTED         a worker sees a missing delivery by the consumer sequence alone
 *
 * When all of NATS' data is lost, the lane is made again: its next incarnation. Here its
 * positions go on behind those of the one before, as the sequences in the code begin with
 * the incarnation (shared/stream). A publish in flight goes into the new lane while what
 * came before it was in the old one: it is marked EARLY (the header ce-after in the code).
 *
 * A KNOWN WEAKNESS: all of NATS' data is lost while a message is at work, and its worker
 * dies between the echo and the frame. The sender has its acknowledgement and does not
 * repeat, no lane holds the message, and the recipient reads it in the history only when
 * something follows, or when it comes back. That one run is left out here; -DHALF_DELIVERED
 * asks for it, and spin finds it. -DECHO_LAST would be the cure: first the frames, and when
 * they are stored the echo.
 *
 * BOUNDS, and so what is not proven: 1 sender, 3 messages, 1 lane that holds 2, 2
 * workers that fetch 2 messages ahead and work one at a time, FAULTS faults in all, of
 * which at most BREAKS broken connections and WIPES losses of all of NATS' data. A
 * redelivery after the ack wait is not here: to a worker it is a broken run, as after a
 * late reset. Suspects and their record (worker/lane/record.go) are not here: order does
 * not need them. A frame that the downlink holds reaches its socket.
 */

#ifndef FAULTS
#define FAULTS 2
#endif
#ifndef BREAKS
#define BREAKS 1
#endif
#ifndef WIPES
#define WIPES 1
#endif

#ifndef MESSAGES
#define MESSAGES 3           /* 2 or 3 */
#endif
#define FIRST(m) ((m) == 1)
#include "rules.pml"
#define ALL (BIT(MESSAGES + 1) - BIT(1))

byte faults = FAULTS;      /* still to come */
byte wiped;                /* losses of all of NATS' data: the incarnation of the lane */

/* The connection. */
byte conn;                 /* the client's connection now; there may have been others */
byte next = 1;             /* what it sends next on this connection */
byte sent;                 /* the highest message that was ever sent */
byte flying;               /* publishes in flight, on all connections */

/* The lane: a work queue, whose positions are JetStream's stream sequence. */
#define CAPACITY 2         /* a full lane refuses */
#define ROOM 20
#define EARLY 8            /* is added to a message whose predecessor is in another incarnation */
byte lane[ROOM];           /* the message at a position; 0: acknowledged and deleted */
byte tail;                 /* the last position used */
byte used;                 /* messages in it */
byte base = 1;             /* the first position of this incarnation */
#ifdef MSGID_DEDUP
byte dedup;                /* the ids that it remembers */
#endif

/* The lane's consumer. */
byte from = 1;             /* the position that is delivered next */
byte delivered;            /* the consumer sequence: counts since the last reset */
byte owner;                /* the worker that is pinned; 0: none */
byte pin;                  /* Nats-Pin-Id, another one for each pinning */
#define AHEAD 2            /* what a worker has fetched and not begun */
chan inbox1 = [AHEAD] of { byte, byte, byte, byte }; /* pin, position, consumer sequence, message */
chan inbox2 = [AHEAD] of { byte, byte, byte, byte };

byte working;              /* workers with something at work */
bool half;                 /* one died with an echo out, and the lane of that message is lost */

/* The downlink. */
byte echo;                 /* acknowledgements that the client has not seen */
byte frame;                /* frames that the recipient gets, or messages that it reads in the history */

/* The edge reads the client's next frame. What no edge has read might as well not have
 * been sent: nothing but the client knows of it. */
inline read(into)
{
	if
	:: told[next] != 0         /* not in the outbox any more */
	:: else ->
		if
		:: next > sent -> sent = next; sends(next)
		:: else
		fi;
		into = next; flying++
	fi;
	next++
}

/* JetStream takes a publish of an edge whose frame before it is in incarnation after. */
#define MARKED(m) ((m) + (after != 0 && after != wiped + 1 -> EARLY : 0))
inline append(m)
{
#ifdef MSGID_DEDUP
	if
	:: dedup & BIT(m)      /* "stored", but it is not */
	:: else -> dedup = dedup | BIT(m); tail++; lane[tail] = MARKED(m); used++
	fi
#else
	tail++;
	lane[tail] = MARKED(m);
	used++
#endif
}

/* The edge hears in which incarnation its frame is stored. When that is another one than
 * the frame before it is in, it closes the connection. */
inline hears(incarnation)
{
#ifndef STAY_CONNECTED
	if
	:: after != 0 && after != incarnation && me == conn -> conn++; next = 1
	:: else
	fi;
#endif
	after = (me == conn -> incarnation : 0)
}

/* JetStream gets the acknowledgement of a position and deletes the message. It looks at
 * nothing else: the sender may be an old owner, and may even mean an old lane. */
inline acknowledge(position)
{
	if
	:: position < from && lane[position] != 0 -> lane[position] = 0; used--
	:: else
	fi
}

/* Back to the acknowledgement floor: everything that is not acknowledged comes again. */
inline resetConsumer()
{
	from = 1;
	do
	:: from <= tail && lane[from] == 0 -> from++
	:: else -> break
	od;
	delivered = 0
}

/* The next message goes to the owner. */
inline deliver()
{
	do
	:: from <= tail && lane[from] == 0 -> from++
	:: else -> break
	od;
	if
	:: from <= tail ->
		delivered++;
		if
		:: owner == 1 -> inbox1!pin, from, delivered, lane[from]
		:: owner == 2 -> inbox2!pin, from, delivered, lane[from]
		fi;
		from++
	:: else
	fi
}

inline drop(inbox)
{
	do
	:: nempty(inbox) -> inbox?_, _, _, _
	:: empty(inbox) -> break
	od
}

/* All is resolved, or may be on its way. Else only the client's timer helps. */
#define QUIET (next > MESSAGES && flying == 0 && used == 0 && echo == 0 \
	&& working == 0 && empty(inbox1) && empty(inbox2))

proctype Client()
{
	byte retries = FAULTS + 1; /* a retry without another fault succeeds */

	do
	:: d_step { echo & BIT(1) -> echo = echo & ~BIT(1); acknowledges(1, number[1]) }
	:: d_step { echo & BIT(2) -> echo = echo & ~BIT(2); acknowledges(2, number[2]) }
#if MESSAGES > 2
	:: d_step { echo & BIT(3) -> echo = echo & ~BIT(3); acknowledges(3, number[3]) }
#endif
	:: d_step { acked != ALL && QUIET && retries > 0 -> retries--; next = 1 }
	:: acked == ALL && timeout -> break /* and nothing moves any more */
	od;
	frame_is_there = (frame == ALL || half);
	assert(frame_is_there);
#ifdef SHOW_END
	never_all_resolved = false;
	assert(never_all_resolved)
#endif
}

/* The edge that holds connection me. It reads on when its publish is stored. */
proctype Edge(byte me)
{
	byte flight;               /* the message that is published, and not stored yet */
	byte after;                /* the incarnation that the frame before it is in, from 1; 0: none */
	byte late;                 /* that of the PubAck of an earlier attempt, which may still come */
#ifdef DISCARD_OLD
	byte oldest;
#endif
#ifdef PIPELINED
	byte second;               /* the one behind it */
	bool refused;              /* flight was, and waits for its next attempt */
#endif

end:	do
	:: d_step { me == conn && flight == 0 && next <= MESSAGES -> read(flight) }
#ifdef PIPELINED
	:: d_step { me == conn && flight != 0 && second == 0 && next <= MESSAGES -> read(second) }
	:: d_step { flight != 0 && used == CAPACITY -> refused = true }
	:: d_step { second != 0 && refused && used < CAPACITY -> append(second); second = 0; flying-- }
#endif
#ifdef DISCARD_OLD
	:: d_step { flight != 0 && used == CAPACITY ->
		oldest = 1;
		do
		:: lane[oldest] == 0 -> oldest++
		:: else -> break
		od;
		lane[oldest] = 0; used--; oldest = 0;
		append(flight); hears(wiped + 1); flight = 0; flying-- }
#endif
	:: d_step { flight != 0 && used < CAPACITY -> /* stored */
		append(flight);
		late = 0;
		hears(wiped + 1);
#ifdef PIPELINED
		flight = second; second = 0; refused = false;
		flying--
#else
		flight = 0; flying--
#endif
		}
	:: d_step { flight != 0 && used < CAPACITY && faults > 0 -> /* stored, but the PubAck is late or lost */
		faults--; append(flight); late = wiped + 1 }
#ifndef PIPELINED
	:: d_step { flight != 0 && late != 0 -> /* it counts, whatever became of the next attempt */
		hears(late); late = 0; flight = 0; flying-- }
#endif
	:: d_step { flight != 0 && me != conn -> /* nobody waits for it, or the edge is dead */
		flight = 0; flying--; after = 0; late = 0
#ifdef PIPELINED
		; if
		:: second != 0 -> second = 0; flying--
		:: else
		fi
#endif
		}
	od
}

proctype Consumer()
{
	byte position;

end:	do
	:: atomic { owner == 0 && used > 0 -> /* both workers ask; one is pinned */
		if
		:: nfull(inbox1) -> owner = 1
		:: nfull(inbox2) && pin != 0 -> owner = 2 /* the workers are alike: 1 is the first */
		fi;
		pin++;
		if
		:: from > tail -> resetConsumer() /* worker/lane: lookForOrphans */
		:: else
		fi;
		deliver() }
	:: d_step { owner != 0 && used > 0 && from > tail && working == 0 && empty(inbox1) && empty(inbox2) ->
		/* Delivered, not acknowledged, and nobody has it: the ack wait is over. The
		 * redelivery breaks the owner's run; no consumer sequence is 0. */
		position = 1;
		do
		:: lane[position] == 0 -> position++
		:: else -> break
		od;
		if
		:: owner == 1 -> inbox1!pin, position, 0, lane[position]
		:: owner == 2 -> inbox2!pin, position, 0, lane[position]
		fi;
		position = 0 }
	:: d_step { ((owner == 1 && nfull(inbox1)) || (owner == 2 && nfull(inbox2))) && from <= tail -> deliver() }
	od
}

/* The echo to the sender is the acknowledgement. */
inline echoes(m)
{
	if
	:: told[m] == 0 -> echo = echo | BIT(m)
	:: else
	fi
}

mtype = { idle, unsettled, begun, committed, echoed, published };

proctype Worker(byte me; chan inbox)
{
	byte mine;                 /* the pin id of the last reset; 0: the lane is not ours */
	byte want;                 /* the consumer sequence that must come next */
	byte last;                 /* the position of the last message of the run */
	byte hole;                 /* the first position behind it that the lane holds, up to the delivery's */
	byte id, position, seq, m; /* the delivery at work */
	mtype at = idle;

end:	do
	:: d_step { at == idle && nempty(inbox) ->
		inbox?id, position, seq, m;
		working++;
#ifndef HOLE_ACCEPTED
		hole = last + 1;
		do
		:: hole < position && lane[hole] == 0 -> hole++
		:: else -> break
		od;
#else
		hole = position;
#endif
		if
		:: id == mine && seq == want && (want == 1 || hole == position) -> want++; at = begun
#ifdef WOKEN_OWNER
		:: mine != 0 && (id != mine || seq != want || (want != 1 && hole != position)) -> mine = id; want = seq + 1; at = begun
		:: mine == 0 -> at = unsettled
#else
#ifdef BROKEN_RUN
		:: id == mine && (seq != want || (want != 1 && hole != position)) -> want = seq + 1; at = begun
		:: id != mine -> at = unsettled
#else
#ifdef NO_RESET
		:: id != mine || seq != want || (want != 1 && hole != position) -> mine = id; want = seq + 1; at = begun
#else
		:: id != mine || seq != want || (want != 1 && hole != position) ->
			at = unsettled     /* taken over, or the run is broken */
#endif
#endif
#endif
		fi;
		last = position; hole = 0 }
	:: d_step { at == unsettled -> /* throw away what was fetched, begin at the floor */
		drop(inbox); resetConsumer();
		mine = id; want = 1; last = 0;
		id = 0; position = 0; seq = 0; m = 0; at = idle; working-- }

	/* The work on one message. */
	:: d_step { at == begun && m > EARLY -> /* what was sent before it may be lost */
#ifdef FRAME_BEHIND_LOSS
		m = m - EARLY
#else
		at = published
#endif
		}
	:: d_step { at == begun && m < EARLY ->
		if
#ifndef NO_UNIQUE_KEY
		:: number[m] != 0      /* known */
#endif
		:: else -> commits(m, count + 1)
		fi;
#ifdef UPACK_BEFORE_DOWNACK
		acknowledge(position);
#endif
		at = committed }
#ifdef ECHO_LAST
	:: d_step { at == committed -> frame = frame | BIT(m); at = echoed }
	:: d_step { at == echoed -> echoes(m); at = published }
#else
	:: d_step { at == committed -> echoes(m); at = echoed }
	:: d_step { at == echoed -> frame = frame | BIT(m); at = published }
#endif
	:: d_step { at == published ->
		acknowledge(position);
		id = 0; position = 0; seq = 0; m = 0; at = idle; working-- }

	/* Death, and the start of another process. */
	:: d_step { faults > 0 && (at != idle || mine != 0 || nempty(inbox)) ->
		faults--;
		drop(inbox);
		if
		:: at != idle -> working--
		:: else
		fi;
#ifndef HALF_DELIVERED
		if
		:: at == echoed && position < base -> half = true
		:: else
		fi;
#endif
		mine = 0; want = 0; last = 0; id = 0; position = 0; seq = 0; m = 0; at = idle;
		if
		:: owner == me -> owner = 0 /* its pin runs out */
		:: else
		fi }
	od
}

proctype Faults()
{
	byte broken;               /* connections */
	byte position;

end:	do
	:: d_step { faults > 0 && broken < BREAKS -> /* the connection breaks, and its edge may die */
		faults--; broken++; conn++;
		next = 1 }             /* the client repeats its outbox on the next one */
	:: d_step { faults > 0 && owner != 0 -> /* the pin runs out: its owner is paused, or cut off */
		faults--; owner = 0 }
	:: d_step { faults > 0 && from > 1 -> /* a request to reset that was late */
		faults--; resetConsumer() }
	:: d_step { faults > 0 && owner != 0 && from <= tail ->
		/* a delivery does not arrive, and no connection breaks */
		faults--; delivered++; from++ }
	:: d_step { faults > 0 && echo != 0 -> /* acknowledgements that nobody has read expire */
		faults--; echo = 0 }
	:: d_step { faults > 0 && wiped < WIPES -> /* all of NATS' data is lost */
		faults--; wiped++;
		do
		:: used > 0 ->
			if
			:: lane[position] != 0 -> lane[position] = 0; used--
			:: else
			fi;
			position++
		:: else -> break
		od;
#ifdef SAME_NUMBERS
		tail = 0;
#endif
		base = tail + 1; from = base; position = 0; delivered = 0; owner = 0;
#ifdef MSGID_DEDUP
		dedup = 0;
#endif
		echo = 0;
		frame = frame | present } /* resumed:false: the recipient reads the history */
	od
}

init
{
	atomic {
		run Client();
		run Edge(0);
#if BREAKS + WIPES > 0
		run Edge(1);
#endif
#if BREAKS + WIPES > 1
		run Edge(2);
#endif
		run Consumer();
		run Worker(1, inbox1);
		run Worker(2, inbox2);
		run Faults()
	}
}
