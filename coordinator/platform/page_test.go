package platform

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

func TestParseSpan(t *testing.T) {
	all := span{most: pageDefault}
	with := func(change func(*span)) span { s := all; change(&s); return s }
	for header, want := range map[string]span{
		"":                               all,
		"version ..":                     with(func(s *span) { s.field = "version" }),
		"id ..; max=1000;":               with(func(s *span) { s.field, s.most = "id", 1000 }),
		"id ..; max=99999":               with(func(s *span) { s.field, s.most = "id", 1000 }),
		"version ..; max=15, order=desc": with(func(s *span) { s.field, s.most, s.descending = "version", 15, true }),
		"version ..; order=desc,max=1":   with(func(s *span) { s.field, s.most, s.descending = "version", 1, true }),
		"name ..; max=5,order=desc":      with(func(s *span) { s.field, s.most, s.descending = "name", 5, true }),
		"name a..c":                      with(func(s *span) { s.field, s.from, s.to = "name", "a", "c" }),
		"name ]a..; max=2":               with(func(s *span) { s.field, s.from, s.fromBeside, s.most = "name", "a", true, 2 }),
		"max=3":                          with(func(s *span) { s.most = 3 }),
		"order=asc":                      all,
	} {
		if got, ok := parseSpan(header); !ok || got != want {
			t.Errorf("parseSpan(%q) = %+v, %v; want %+v", header, got, ok, want)
		}
	}
	for _, header := range []string{"bytes=0-99", "version", "version ..; max=0", "version ..; max=-1", "version ..; max=x", "max=99999999999999999999", "version ..; order=up", "..", "version ..; name ..", "x=y", "\x00"} {
		if got, ok := parseSpan(header); ok {
			t.Errorf("parseSpan(%q) = %+v, want a refusal", header, got)
		}
	}
}

func FuzzParseSpan(f *testing.F) {
	f.Add("version ..; max=15, order=desc")
	f.Add("id ]a..b; max=1000;")
	f.Fuzz(func(t *testing.T, header string) {
		if s, ok := parseSpan(header); ok && (s.most < 1 || s.most > pageMost) {
			t.Errorf("parseSpan(%q) allows a page of %d", header, s.most)
		}
	})
}

// Following Next-Range from any start gives every release once, in order; 206
// stands for "there is more" and for nothing else.
func TestPaging(t *testing.T) {
	r := newRig(t)
	app := r.app("paged")
	const total = 25 // two of them from the start
	for i := range total - 2 {
		r.send("PATCH", "/apps/paged/config-vars", fmt.Sprintf(`{"N":"%d"}`, i)).want(200)
	}
	type release struct{ Version int }
	for _, tc := range []struct {
		first  string
		expect func(i int) int
		count  int
		pages  int
	}{
		{"", func(i int) int { return i + 1 }, total, 1},
		{"version ..; max=25", func(i int) int { return i + 1 }, total, 1},
		{"version ..; max=24", func(i int) int { return i + 1 }, total, 2},
		{"version ..; max=10", func(i int) int { return i + 1 }, total, 3},
		{"version ..; max=10, order=desc", func(i int) int { return total - i }, total, 3},
		{"version 9..11", func(i int) int { return i + 9 }, 3, 1},
		{"version 9..20; max=5", func(i int) int { return i + 9 }, 12, 3},
		{"version 20..9; max=5, order=desc", func(i int) int { return 20 - i }, 12, 3},
		{"version ]9..11", func(i int) int { return i + 10 }, 2, 1},
		{"version 100..", nil, 0, 1},
	} {
		t.Run(tc.first, func(t *testing.T) {
			r := r.on(t)
			n, pages, header := 0, 0, tc.first
			for {
				got := r.send("GET", "/apps/"+app.Name+"/releases", "", "Range", header)
				pages++
				for _, rel := range into[[]release](got) {
					if rel.Version != tc.expect(n) {
						t.Fatalf("entry %d is v%d, want v%d", n, rel.Version, tc.expect(n))
					}
					n++
				}
				header = got.header.Get("Next-Range")
				if (got.status == http.StatusPartialContent) != (header != "") || got.status/100 != 2 {
					t.Fatalf("status %d with Next-Range %q", got.status, header)
				}
				if header == "" {
					break
				}
			}
			if n != tc.count || pages != tc.pages {
				t.Errorf("%d entries in %d pages, want %d in %d", n, pages, tc.count, tc.pages)
			}
		})
	}
	got := r.send("GET", "/apps/paged/releases", "", "Range", "version ..; max=3, order=desc").want(206)
	for name, want := range map[string]string{
		"Content-Range": "version 25..23; max=3",
		"Next-Range":    "version ]23..; max=3, order=desc",
		"Accept-Ranges": "version, id",
	} {
		if got.header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.header.Get(name), want)
		}
	}
	for _, nonsense := range []string{"bytes=0-1", "version x..", "color ..", "version ..; max=0", strings.Repeat("z", 5000)} {
		r.send("GET", "/apps/paged/releases", "", "Range", nonsense).fails(416, "requested_range_not_satisfiable", "version")
	}
}

func TestDefaultPage(t *testing.T) {
	items := make([]int, 450)
	for i := range items {
		items[i] = i
	}
	c := &call{Request: &http.Request{Header: http.Header{}}}
	got, err := list(c, items, func(i int) any { return i }, key[int]{name: "n", number: true, of: strconv.Itoa})
	if err != nil || got.status != 206 || len(got.value.([]any)) != 200 || got.header.Get("Next-Range") != "n ]199..; max=200" {
		t.Errorf("%v %v %v", got.status, got.header, err)
	}
}
