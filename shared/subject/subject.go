// Package subject builds and reads every NATS subject of the system. Nothing else
// does; a subject anywhere in the code comes out of a function of this package.
//
// It never talks to NATS.
package subject

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"github.com/wirepost/wirepost/shared/userid"
)

// The subject space. <user> is userid.ID.Token, <lane> and <shard> are decimal.
//
//	im.up.<lane>.<user>     JetStream work queue: one client frame or one connection event
//	im.down.<shard>.<user>  JetStream: one frame for the devices of a user
//	im.mark.<shard>.<edge>  JetStream, same stream as down: an edge's marker
//	im.live.<shard>.<user>  core: republished im.down, and frames that may be lost
//	im.dead.<lane>.<user>   JetStream: uplink messages that can never succeed
//
// Reserved, unused today: im.topic.<topic>, im.app.<bizType>.<user>.
const (
	up   = "im.up."
	down = "im.down."
	mark = "im.mark."
	live = "im.live."
	dead = "im.dead."
)

// ErrForeign is returned when a subject is not of the kind that was asked for.
var ErrForeign = errors.New("subject is not of this kind")

// Lane returns the lane of a user among lanes lanes (≥ 1): FNV-1a (32 bit) of the
// canonical user id, modulo lanes.
func Lane(id userid.ID, lanes int) int { return int(fnv32a(id.Token()) % uint32(lanes)) }

// Shard returns the downlink shard of a user among shards shards (≥ 1); the hash is Lane's.
func Shard(id userid.ID, shards int) int { return int(fnv32a(id.Token()) % uint32(shards)) }

func fnv32a(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

// Up is where an edge publishes what a user's connection sent.
func Up(lane int, id userid.ID) string { return join(up, lane, id.Token()) }

// UpLane matches every Up subject of a lane.
func UpLane(lane int) string { return join(up, lane, ">") }

// UpAll matches every Up subject.
func UpAll() string { return up + ">" }

// ParseUp takes an Up subject apart.
func ParseUp(s string) (lane int, id userid.ID, err error) { return parse(up, s) }

// Down is where a frame for all devices of a user is stored and delivered.
func Down(shard int, id userid.ID) string { return join(down, shard, id.Token()) }

// DownShard matches every Down subject of a shard.
func DownShard(shard int) string { return join(down, shard, ">") }

// ParseDown takes a Down subject apart.
func ParseDown(s string) (shard int, id userid.ID, err error) { return parse(down, s) }

// MaxEdge is the length of the longest name of an edge, in bytes.
const MaxEdge = 64

// Plain reports whether s is a plain token, [A-Za-z0-9_-], of 1 to most bytes.
func Plain(s string, most int) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || 'z' < c) && (c < 'A' || 'Z' < c) && (c < '0' || '9' < c) && c != '_' && c != '-' {
			return false
		}
	}
	return 1 <= len(s) && len(s) <= most
}

// Mark is where the edge named edge marks the end of a shard. The name must be a
// plain token ([A-Za-z0-9_-]).
func Mark(shard int, edge string) string { return join(mark, shard, edge) }

// HomeShard is the shard where the edge named edge leaves its lease mark: the hash of
// Lane, over the edge's name.
func HomeShard(edge string, shards int) int { return int(fnv32a(edge) % uint32(shards)) }

// MarkShard matches every Mark subject of a shard.
func MarkShard(shard int) string { return join(mark, shard, "*") }

// Live is where a user's frames are seen as they are stored.
func Live(shard int, id userid.ID) string { return join(live, shard, id.Token()) }

// AppendLive appends Live to b.
func AppendLive(b []byte, shard int, id userid.ID) []byte {
	return appendTo(b, live, shard, id.Token())
}

// CutLive takes a Live subject apart without a check of the token, for who looks it up
// among known ones. Both point into s; ok is false for another kind of subject.
func CutLive(s []byte) (shard int, token []byte, ok bool) {
	rest, ok := bytes.CutPrefix(s, []byte(live))
	if !ok {
		return 0, nil, false
	}
	num, token, ok := bytes.Cut(rest, []byte("."))
	if !ok || len(num) == 0 || len(num) > 9 || len(num) > 1 && num[0] == '0' {
		return 0, nil, false
	}
	for _, c := range num {
		if c < '0' || '9' < c {
			return 0, nil, false
		}
		shard = 10*shard + int(c-'0')
	}
	return shard, token, true
}

// LiveShard matches every Live subject of a shard.
func LiveShard(shard int) string { return join(live, shard, ">") }

// LiveAll matches every Live subject.
func LiveAll() string { return live + ">" }

// ParseLive takes a Live subject apart.
func ParseLive(s string) (shard int, id userid.ID, err error) { return parse(live, s) }

// Dead is where an uplink message goes that can never succeed.
func Dead(lane int, id userid.ID) string { return join(dead, lane, id.Token()) }

// DeadAll matches every Dead subject.
func DeadAll() string { return dead + ">" }

// RepublishFrom and RepublishTo are the subject transform of a downlink stream
// (JetStream RePublish): Down becomes Live; markers are not republished.
func RepublishFrom(shard int) string { return join(down, shard, ">") }

// RepublishTo is the destination that belongs to RepublishFrom.
func RepublishTo(shard int) string { return join(live, shard, ">") }

func join(kind string, n int, last string) string {
	return string(appendTo(make([]byte, 0, len(kind)+4+len(last)), kind, n, last))
}

func appendTo(b []byte, kind string, n int, last string) []byte {
	b = append(b, kind...)
	b = strconv.AppendInt(b, int64(n), 10)
	b = append(b, '.')
	return append(b, last...)
}

func parse(kind, s string) (n int, id userid.ID, err error) {
	rest, ok := strings.CutPrefix(s, kind)
	if !ok {
		return 0, userid.ID{}, ErrForeign
	}
	num, token, ok := strings.Cut(rest, ".")
	if !ok {
		return 0, userid.ID{}, ErrForeign
	}
	n, err = strconv.Atoi(num)
	if err != nil || n < 0 || strconv.Itoa(n) != num {
		return 0, userid.ID{}, ErrForeign
	}
	id, err = userid.FromToken(token)
	return n, id, err
}
