package tap

import (
	"bytes"
	"encoding/binary"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// The wire protocol of MongoDB, as far as it is needed here. Every integer is a little
// endian int32.
//
//	message  length requestID responseTo opCode body    length counts itself
//	OP_MSG   flags section* [checksum]
//	section  0x00 document                              the command or its reply
//	         0x01 length name 0x00 document*            an array of the command, apart
const (
	headerLen   = 16
	opMsg       = 2013
	flagSum     = 1        // a checksum of 4 bytes ends the message
	maxMessage  = 48 << 20 // bytes; MongoDB's maxMessageSizeBytes is 48,000,000
	sectionBody = 0
	sectionSeq  = 1
)

type header struct{ requestID, responseTo, opCode int32 }

// framer cuts a stream into messages. The zero framer is ready for use.
type framer struct {
	buf    []byte
	broken bool // no message stream: nothing more is looked at
}

// feed takes the next bytes of the stream and calls each for every message that is
// complete. body is valid until each returns.
func (f *framer) feed(b []byte, each func(h header, body []byte)) {
	if f.broken {
		return
	}
	f.buf = append(f.buf, b...)
	rest := f.buf
	for len(rest) >= headerLen {
		n := int(int32(binary.LittleEndian.Uint32(rest)))
		if n < headerLen || n > maxMessage {
			f.broken, f.buf = true, nil
			return
		}
		if len(rest) < n {
			break
		}
		each(header{requestID: i32(rest[4:]), responseTo: i32(rest[8:]), opCode: i32(rest[12:])}, rest[headerLen:n])
		rest = rest[n:]
	}
	f.buf = append(f.buf[:0], rest...)
}

func i32(b []byte) int32 { return int32(binary.LittleEndian.Uint32(b)) }

// sections returns the document of an OP_MSG body and its arrays; ok is false for what
// is malformed.
func sections(body []byte) (doc bson.Raw, seqs map[string][]bson.Raw, ok bool) {
	if len(body) < 5 {
		return nil, nil, false
	}
	flags := binary.LittleEndian.Uint32(body)
	body = body[4:]
	if flags&flagSum != 0 && len(body) >= 4 {
		body = body[:len(body)-4]
	}
	for len(body) > 0 {
		kind := body[0]
		body = body[1:]
		var part []byte
		if part, body, ok = sized(body); !ok {
			return nil, nil, false
		}
		switch kind {
		case sectionBody:
			doc = part
		case sectionSeq:
			name, docs, ok := bytes.Cut(part[4:], []byte{0})
			if !ok {
				return nil, nil, false
			}
			if seqs == nil {
				seqs = map[string][]bson.Raw{}
			}
			seqs[string(name)] = documents(docs)
		default:
			return nil, nil, false
		}
	}
	return doc, seqs, doc != nil
}

// sized splits what begins with its own length from b.
func sized(b []byte) (part, rest []byte, ok bool) {
	if len(b) < 5 {
		return nil, nil, false
	}
	n := int(i32(b))
	if n < 5 || n > len(b) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

func documents(b []byte) []bson.Raw {
	var docs []bson.Raw
	for {
		part, rest, ok := sized(b)
		if !ok {
			return docs
		}
		docs, b = append(docs, bson.Raw(part)), rest
	}
}

// insert is an insert command.
type insert struct {
	docs    []Insert
	ordered bool // nothing behind the first error is stored
}

// parseInsert reads an insert command into a collection; ok is false for every other
// message.
func parseInsert(body []byte, collection string) (in insert, ok bool) {
	doc, seqs, ok := sections(body)
	if !ok {
		return insert{}, false
	}
	first, err := doc.IndexErr(0)
	if err != nil || first.Key() != "insert" {
		return insert{}, false
	}
	if name, ok := first.Value().StringValueOK(); !ok || name != collection {
		return insert{}, false
	}
	in.ordered = true // by default
	if v, ok := doc.Lookup("ordered").BooleanOK(); ok {
		in.ordered = v
	}
	docs := seqs["documents"]
	if list, ok := doc.Lookup("documents").ArrayOK(); ok {
		values, _ := list.Values()
		for _, v := range values {
			d, _ := v.DocumentOK()
			docs = append(docs, d)
		}
	}
	for _, d := range docs {
		in.docs = append(in.docs, Insert{From: text(d, "from"), CID: text(d, "cid")})
	}
	return in, true
}

func text(d bson.Raw, key string) string {
	s, _ := d.Lookup(key).StringValueOK()
	return s
}

// stored returns the documents that the reply to an insert acknowledges.
func (in insert) stored(reply []byte) []Insert {
	doc, _, ok := sections(reply)
	if !ok {
		return nil
	}
	if v, ok := doc.Lookup("ok").AsFloat64OK(); !ok || v != 1 {
		return nil
	}
	if _, err := doc.LookupErr("writeConcernError"); err == nil {
		return nil
	}
	list, _ := doc.Lookup("writeErrors").ArrayOK()
	values, _ := list.Values()
	bad := map[int64]bool{}
	for _, v := range values {
		d, _ := v.DocumentOK()
		if i, ok := d.Lookup("index").AsInt64OK(); ok {
			bad[i] = true
		}
	}
	var out []Insert
	for i, doc := range in.docs {
		switch {
		case !bad[int64(i)]:
			out = append(out, doc)
		case in.ordered:
			return out
		}
	}
	return out
}
