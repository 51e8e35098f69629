package logs

import (
	"strings"
	"testing"
	"unicode/utf8"

	"manifold"
)

// Whatever a dyno prints becomes lines that fit their frame: bounded, valid
// UTF-8, with no line end, and nothing of it is lost or made up.
func FuzzPieces(f *testing.F) {
	for _, text := range []string{"", "plain", "a\nb\r\n", "\x00\xff\x1b[31m", strings.Repeat("ü", manifold.MaxLogLine), "\u2028\u0085", strings.Repeat("x", 3*manifold.MaxLogLine)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, n := "", 0
		for piece := range pieces(text) {
			n++
			if len(piece) > manifold.MaxLogLine || !utf8.ValidString(piece) || strings.ContainsAny(piece, "\n\r\v\f\x00") {
				t.Fatalf("%q gives %q", text, piece)
			}
			all += piece
		}
		want := len([]rune(strings.TrimRight(text, "\r\n"))) // an invalid byte is a rune
		if n == 0 || utf8.RuneCountInString(all) != want {
			t.Fatalf("%q gives %d pieces, %q", text, n, all)
		}
	})
}

// What a segment file holds after a crash is a record or none, and no name in
// one can pretend to be a field.
func FuzzParseRecord(f *testing.F) {
	for _, line := range []string{"L 1 2 3 4 app web.1 text", "P 1 2 3 stream", "L 1", "H 1", "", "L -1 x", "L 99999999999999999999 1 1 1 a b c"} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, ok := parse(line)
		if ok && (r.kind != 'L' && r.kind != 'P' || strings.Contains(string(r.source)+string(r.process), " ")) {
			t.Fatalf("%q is read as %+v", line, r)
		}
		if w := word(string(line)); w == "" || strings.ContainsAny(w, " []\n\x00") || len(w) > 160 {
			t.Fatalf("%q becomes the word %q", line, w)
		}
	})
}
