package conformance

// sequence is some bytes and whether they are UTF-8.
type sequence struct {
	s     string
	valid bool
}

// sequences are 6.5 to 6.23, a row each. They follow Markus Kuhn's "UTF-8 decoder
// capability and stress test", as the suite does.
var sequences = [][]sequence{
	good("hello$world", "hello¢world", "hello€world", "hello\U00024B62world", greek), // 6.5: one to four bytes
	prefixes(greek), // 6.6
	good("\x00", "\u0080", "\u0800", "\U00010000"),                                                                         // 6.7: the first of each length
	bad("\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80"),                                                                // 6.8: lengths that are none
	good("\x7f", "\u07ff", "\uffff", "\U0010ffff"),                                                                         // 6.9: the last of each length
	bad("\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf"),                                            // 6.10
	append(good("\ud7ff", "\ue000", "\ufffd", "\U0010ffff"), bad(tooHigh)...),                                              // 6.11: beside the borders
	append(bad(alternating(6)...), bad(upTo(0x80, 0xbf, ""))...),                                                           // 6.12: continuation bytes alone
	bad(upTo(0xc0, 0xdf, " "), upTo(0xe0, 0xef, " "), upTo(0xf0, 0xf7, " "), upTo(0xf8, 0xfb, " "), upTo(0xfc, 0xfd, " ")), // 6.13: start bytes alone
	bad(cutShort...),                        // 6.14
	bad(concat(cutShort)),                   // 6.15
	bad("\xfe", "\xff", "\xfe\xfe\xff\xff"), // 6.16: bytes that are never there
	bad("\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf"), // 6.17: a long slash
	bad("\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf"), // 6.18: too long by one byte
	bad("\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80"), // 6.19: a long NUL
	bad(surrogates...),       // 6.20
	bad(pairs()...),          // 6.21
	good(nonCharacters()...), // 6.22: no characters, but code points
	good("\ufff9", "\ufffa", "\ufffb", "\ufffc", "\ufffd", "\ufffe", "\uffff"), // 6.23: specials
}

// cutShort are sequences whose last byte is missing: the smallest and the largest of
// each length that the bits allow.
var cutShort = []string{
	"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xf8\x80\x80\x80", "\xfc\x80\x80\x80\x80",
	"\xdf", "\xef\xbf", "\xf7\xbf\xbf", "\xfb\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf",
}

// surrogates at the borders of their ranges, high ones first; 6.20.6 is not at one.
var surrogates = []string{
	"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf",
}

func good(list ...string) []sequence { return row(list, true) }
func bad(list ...string) []sequence  { return row(list, false) }

func row(list []string, valid bool) (all []sequence) {
	for _, s := range list {
		all = append(all, sequence{s, valid})
	}
	return all
}

// prefixes of a valid text: valid where a character ends.
func prefixes(s string) (all []sequence) {
	ends := map[int]bool{len(s): true}
	for i := range s {
		ends[i] = true
	}
	for n := 1; n <= len(s); n++ {
		all = append(all, sequence{s[:n], ends[n]})
	}
	return all
}

// alternating are n texts like "80", "bf", "80 bf", "80 bf 80" …
func alternating(n int) []string {
	const bytes = "\x80\xbf\x80\xbf\x80\xbf\x80"
	list := []string{bytes[:1], bytes[1:2]}
	for i := 2; i <= n; i++ {
		list = append(list, bytes[:i])
	}
	return list
}

// upTo holds every byte from first to below end, behind each one sep.
func upTo(first, end byte, sep string) string {
	var b []byte
	for c := first; c < end; c++ {
		b = append(append(b, c), sep...)
	}
	return string(b)
}

func concat(list []string) (s string) {
	for _, part := range list {
		s += part
	}
	return s
}

// pairs are a high and a low surrogate, as CESU-8 has them.
func pairs() (list []string) {
	for _, high := range surrogates[:4] {
		for _, low := range []string{"\xed\xb0\x80", "\xed\xbf\xbf"} {
			list = append(list, high+low)
		}
	}
	return list
}

// nonCharacters are U+FFFE and U+FFFF of each plane from 0 to 16, in order.
func nonCharacters() (list []string) {
	for plane := range rune(17) {
		list = append(list, string(plane<<16|0xfffe), string(plane<<16|0xffff))
	}
	return list
}
