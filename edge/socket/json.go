package socket

// validJSON reports whether b is one JSON value (RFC 8259). Unlike json.Valid it takes
// nothing from the heap or a pool; it refuses what is nested deeper than maxDepth. It is
// asked about heartbeats and logins only, never about what is relayed.
func validJSON(b []byte) bool {
	i := strictValue(b, space(b, 0), maxDepth)
	return i >= 0 && space(b, i) == len(b)
}

const maxDepth = 32

// The strict functions return the position behind what starts at i, -1 if there is none.

func strictValue(b []byte, i, depth int) int {
	if i >= len(b) || depth == 0 {
		return -1
	}
	switch b[i] {
	case '{':
		return strictList(b, i+1, depth-1, '}')
	case '[':
		return strictList(b, i+1, depth-1, ']')
	case '"':
		return strictString(b, i+1)
	case 't':
		return literal(b, i, "true")
	case 'f':
		return literal(b, i, "false")
	case 'n':
		return literal(b, i, "null")
	}
	return strictNumber(b, i)
}

// strictList takes the members of an object (end is '}') or the elements of an array.
func strictList(b []byte, i, depth int, end byte) int {
	if i = space(b, i); i < len(b) && b[i] == end {
		return i + 1
	}
	for {
		if end == '}' {
			if i >= len(b) || b[i] != '"' {
				return -1
			}
			if i = strictString(b, i+1); i < 0 {
				return -1
			}
			if i = space(b, i); i >= len(b) || b[i] != ':' {
				return -1
			}
			i = space(b, i+1)
		}
		if i = strictValue(b, i, depth); i < 0 {
			return -1
		}
		if i = space(b, i); i >= len(b) {
			return -1
		}
		switch b[i] {
		case end:
			return i + 1
		case ',':
			i = space(b, i+1)
		default:
			return -1
		}
	}
}

func strictString(b []byte, i int) int {
	for i < len(b) {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return -1
		case c == '\\':
			if i = escape(b, i+1); i < 0 {
				return -1
			}
		default:
			i++
		}
	}
	return -1
}

func escape(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 1
	case 'u':
		for n := 1; n <= 4; n++ {
			if i+n >= len(b) || !hexDigit(b[i+n]) {
				return -1
			}
		}
		return i + 5
	}
	return -1
}

func hexDigit(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func literal(b []byte, i int, word string) int {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return -1
	}
	return i + len(word)
}

func strictNumber(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if i = someDigits(b, i); i < 0 {
		return -1
	}
	if i < len(b) && b[i] == '.' {
		if i = someDigits(b, i+1); i < 0 {
			return -1
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		return someDigits(b, i)
	}
	return i
}

func someDigits(b []byte, i int) int {
	start := i
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	if i == start {
		return -1
	}
	return i
}
