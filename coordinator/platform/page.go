package platform

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	pageDefault = 200
	pageMost    = 1000
)

// key is a property by which a list can be ordered and cut. No two entries of
// a list share a value.
type key[T any] struct {
	name   string
	of     func(T) string
	number bool // values are decimal numbers and ordered as such
}

func (k key[T]) compare(a, b string) int {
	if k.number {
		x, _ := strconv.Atoi(a) // accepts saw to it
		y, _ := strconv.Atoi(b)
		return cmp.Compare(x, y)
	}
	return strings.Compare(a, b)
}

// accepts tells whether text can be an end of a range; "" is an open end.
func (k key[T]) accepts(text string) bool {
	if text == "" || !k.number {
		return true
	}
	_, err := strconv.Atoi(text)
	return err == nil
}

// span is a Range header that was understood.
type span struct {
	field      string
	from, to   string // "" is open
	fromBeside bool   // from itself is left out: "]v"
	most       int
	descending bool
}

var spanForm = regexp.MustCompile(`^(\w+)\s+(\]?)([^;\s]*?)\.\.([^;\s]*)$`)

// parseSpan reads "version 5..9; max=10, order=desc". Every part may be left
// out, and the options may come in any order with blanks and ";" to taste, as
// the clients do.
func parseSpan(header string) (span, bool) {
	s := span{most: pageDefault}
	for i, part := range strings.FieldsFunc(header, func(r rune) bool { return r == ';' || r == ',' }) {
		part = strings.TrimSpace(part)
		name, value, isOption := strings.Cut(part, "=")
		switch {
		case part == "":
		case i == 0 && spanForm.MatchString(part):
			m := spanForm.FindStringSubmatch(part)
			s.field, s.fromBeside, s.from, s.to = m[1], m[2] != "", m[3], m[4]
		case isOption && strings.TrimSpace(name) == "max":
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil || n < 1 {
				return span{}, false
			}
			s.most = min(n, pageMost)
		case isOption && strings.TrimSpace(name) == "order":
			switch strings.TrimSpace(value) {
			case "asc":
			case "desc":
				s.descending = true
			default:
				return span{}, false
			}
		default:
			return span{}, false
		}
	}
	return s, true
}

// list answers with the part of items that the request's Range asks for,
// ordered by the first key unless it names another. Next-Range, and with it
// 206, is there only when more follows: the CLI asks on as long as it sees
// 206.
func list[T any](c *call, items []T, show func(T) any, keys ...key[T]) (answer, error) {
	s, k, err := chosen(c.Header.Get("Range"), keys)
	if err != nil {
		return answer{}, err
	}
	direction := 1
	if s.descending {
		direction = -1
	}
	order := func(a, b string) int { return direction * k.compare(a, b) }
	items = slices.DeleteFunc(slices.Clone(items), func(it T) bool {
		v := k.of(it)
		before := s.from != "" && (order(v, s.from) < 0 || s.fromBeside && v == s.from)
		return before || s.to != "" && order(v, s.to) > 0
	})
	slices.SortFunc(items, func(a, b T) int { return order(k.of(a), k.of(b)) })

	ans := answer{status: http.StatusOK, header: http.Header{}}
	page := items[:min(len(items), s.most)]
	shown := make([]any, len(page))
	for i, it := range page {
		shown[i] = show(it)
	}
	ans.value = shown
	ans.header.Set("Accept-Ranges", keyNames(keys))
	if len(page) > 0 {
		first, last := k.of(page[0]), k.of(page[len(page)-1])
		ans.header.Set("Content-Range", fmt.Sprintf("%s %s..%s; max=%d", k.name, first, last, s.most))
		if len(page) < len(items) {
			next := fmt.Sprintf("%s ]%s..%s; max=%d", k.name, last, s.to, s.most)
			if s.descending {
				next += ", order=desc"
			}
			ans.header.Set("Next-Range", next)
			ans.status = http.StatusPartialContent
		}
	}
	return ans, nil
}

// chosen understands a Range header and finds the key it goes by.
func chosen[T any](header string, keys []key[T]) (span, key[T], error) {
	if s, understood := parseSpan(header); understood {
		for _, k := range keys {
			if (s.field == k.name || s.field == "") && k.accepts(s.from) && k.accepts(s.to) {
				return s, k, nil
			}
		}
	}
	return span{}, key[T]{}, &fault{
		Status: http.StatusRequestedRangeNotSatisfiable, ID: "requested_range_not_satisfiable",
		Message: fmt.Sprintf(`The Range %q was not understood. It may look like "%s ..; max=10, order=desc"; this list goes by: %s.`,
			clip(header), keys[0].name, keyNames(keys)),
	}
}

func keyNames[T any](keys []key[T]) string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	return strings.Join(names, ", ")
}
