package http1

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

func reader(text string) *bufio.Reader { return bufio.NewReader(strings.NewReader(text)) }

func TestChunkedBody(t *testing.T) {
	for text, want := range map[string]string{
		"5\r\nhello\r\n0\r\n\r\n":                          "hello",
		"5;a=b;c=\"d\"\r\nhello\r\n1\r\n!\r\n00\r\n\r\n":   "hello!",
		"A \r\n0123456789\r\n0\r\nX: y\r\n\r\n":            "0123456789",
		"0\r\n\r\nnext":                                    "",
		"000000000000005\r\nhello\r\n0\r\n\r\n":            "hello",
		"5\nhello\r\n0\r\n\r\n":                            "bad chunk",
		"5\r\nhello\n0\r\n\r\n":                            "bad chunk",
		"5\r\nhelloX\r\n0\r\n\r\n":                         "bad chunk",
		"-5\r\nhello\r\n0\r\n\r\n":                         "bad chunk",
		"0x5\r\nhello\r\n0\r\n\r\n":                        "bad chunk",
		" 5\r\nhello\r\n0\r\n\r\n":                         "bad chunk",
		"\r\n":                                             "bad chunk",
		"5 5\r\nhello\r\n0\r\n\r\n":                        "bad chunk",
		"5;\x00\r\nhello\r\n0\r\n\r\n":                     "bad chunk",
		"fffffffffffffffff\r\nx":                           "bad chunk",
		"5;" + strings.Repeat("x", 5000) + "\r\nhello":     "bad chunk",
		"0\r\nbad trailer\r\n\r\n":                         "bad chunk",
		"0\r\nA: b\n\n":                                    "bad chunk",
		"0\r\n" + strings.Repeat("A: b\r\n", 200) + "\r\n": "bad chunk",
		"5\r\nhel":            "unexpected EOF",
		"5\r\nhello":          "unexpected EOF",
		"5\r\nhello\r\n":      "unexpected EOF",
		"0\r\n":               "unexpected EOF",
		"5":                   "unexpected EOF",
		"":                    "unexpected EOF",
		"0\r\nA: b\r\n":       "unexpected EOF",
		"7fffffffffffff\r\nx": "unexpected EOF",
	} {
		for _, wrap := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader} {
			b := newBody(bufio.NewReader(wrap(strings.NewReader(text))), Chunked)
			got, err := io.ReadAll(b)
			switch {
			case err != nil && err.Error() != want:
				t.Errorf("%.40q: %v, want %s", text, err, want)
			case err == nil && (string(got) != want || !b.Done()):
				t.Errorf("%.40q: %q, want %s", text, got, want)
			}
		}
	}
}

func TestBodyLeavesTheNextMessageAlone(t *testing.T) {
	for text, length := range map[string]int64{"hellonext": 5, "5\r\nhello\r\n0\r\nT: v\r\n\r\nnext": Chunked, "next": 0} {
		br := reader(text)
		b := newBody(br, length)
		if _, err := io.ReadAll(b); err != nil {
			t.Fatal(err)
		}
		if rest, _ := io.ReadAll(br); string(rest) != "next" {
			t.Errorf("%q: left %q", text, rest)
		}
	}
	b := newBody(reader("until the end"), UntilClose)
	if got, err := io.ReadAll(b); string(got) != "until the end" || err != nil || !b.Done() {
		t.Errorf("%q %v", got, err)
	}
	b = newBody(reader("shor"), 5)
	if got, err := io.ReadAll(b); string(got) != "shor" || err != io.ErrUnexpectedEOF || b.Done() {
		t.Errorf("%q %v", got, err)
	}
}

func TestTrailersThatWouldChangeFraming(t *testing.T) {
	got := string(AppendEnd(nil, []Field{{"X-Sum", "1", Other}, {"Content-Length", "5", ContentLength}, {"Host", "x", Host}, {"Set-Cookie", "a", SetCookie}}))
	if got != "0\r\nX-Sum: 1\r\n\r\n" {
		t.Fatalf("%q", got)
	}
}

func TestResponses(t *testing.T) {
	for text, want := range map[string]struct {
		length, announced int64
		last              bool
		err               error
	}{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n":                           {length: 5, announced: -1},
		"HTTP/1.1 200 \r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n":        {length: 5, announced: -1},
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n":                  {length: Chunked, announced: -1},
		"HTTP/1.1 200 OK\r\n\r\n":                                                {length: UntilClose, announced: -1, last: true},
		"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n":                           {length: 5, announced: -1, last: true},
		"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\n": {length: 5, announced: -1},
		"HTTP/1.1 200 OK\r\nConnection: x, close\r\nContent-Length: 5\r\n\r\n":   {length: 5, announced: -1, last: true},
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n":                 {announced: 5},
		"HTTP/1.1 204 No Content\r\n\r\n":                                        {announced: -1},
		"HTTP/1.1 103 Early Hints\r\n\r\n":                                       {announced: -1},
		"HTTP/1.1 200\r\n\r\n":                                                   {err: ErrMalformed},
		"HTTP/1.1 099 x\r\n\r\n":                                                 {err: ErrMalformed},
		"HTTP/1.2 200 OK\r\n\r\n":                                                {err: ErrMalformed},
		"HTTP/1.1 200 O\x00K\r\n\r\n":                                            {err: ErrMalformed},
		"HTTP/1.1 2":                                                             {err: io.ErrUnexpectedEOF},
		"":                                                                       {err: io.EOF},
	} {
		var r Response
		err := r.Read(reader(text), "GET")
		if want.err != nil {
			if !errors.Is(err, want.err) {
				t.Errorf("%q: %v, want %v", text, err, want.err)
			}
			continue
		}
		if err != nil || r.Length != want.length || r.Announced != want.announced || r.Last != want.last {
			t.Errorf("%q: %v %+v", text, err, r)
		}
	}
}

// FuzzRequest holds us against net/http: what we take, it must take too and
// read in the same way. Else an app behind us could be told another story
// than we understood.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST /x?y HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\n\r\nabc",
		"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: v\r\n\r\n",
		"GET http://a/b HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Request
		br := reader(string(data))
		if err := r.Read(br); err != nil {
			return
		}
		body, bodyErr := io.ReadAll(io.LimitReader(r.Body(br), 1<<20))
		// As we would send it on, but for what we add.
		var out strings.Builder
		out.WriteString(r.Method + " " + r.Target + " HTTP/1.1\r\n")
		for _, field := range r.Fields {
			if !r.HopByHop(field) && field.Kind != ContentLength && field.Kind != Expect || field.Kind == Host {
				out.Write(AppendField(nil, field.Name, field.Value))
			}
		}
		if bodyErr == nil && len(body) > 0 {
			out.Write(AppendField(nil, "Transfer-Encoding", "chunked"))
			out.WriteString("\r\n")
			out.Write(AppendChunk(nil, len(body)))
			out.WriteString(string(body) + "\r\n")
			out.Write(AppendEnd(nil, nil))
		} else {
			out.WriteString("\r\n")
			body = nil
		}
		const next = "GET /next HTTP/1.1\r\nHost: n\r\n\r\n"
		theirs := bufio.NewReader(strings.NewReader(out.String() + next))
		got, err := http.ReadRequest(theirs)
		if err != nil {
			// It is stricter in what a URI is; a dyno would answer 400.
			if strings.Contains(err.Error(), "invalid") || strings.Contains(err.Error(), "parse") || strings.Contains(err.Error(), "malformed Host") {
				return
			}
			t.Fatalf("net/http: %v\n%q", err, out.String())
		}
		text, err := io.ReadAll(got.Body)
		if err != nil || string(text) != string(body) || got.Method != r.Method || got.Host != r.Host {
			t.Fatalf("net/http read %q %v %s %s\n%q", text, err, got.Method, got.Host, out.String())
		}
		if after, err := http.ReadRequest(theirs); err != nil || after.URL.Path != "/next" {
			t.Fatalf("the next request became %v %v\n%q", after, err, out.String())
		}
	})
}

// FuzzResponse must end, within its bounds, whatever a dyno says.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.0 404 Not Found\r\n\r\ngone", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
	} {
		f.Add([]byte(s), "GET")
	}
	f.Fuzz(func(t *testing.T, data []byte, method string) {
		var r Response
		br := reader(string(data))
		if err := r.Read(br, method); err != nil {
			return
		}
		body := r.Body(br)
		n, err := io.Copy(io.Discard, body)
		if (err == nil) != body.Done() || n > int64(len(data)) || r.Length > 0 && err == nil && n != r.Length {
			t.Fatalf("%d bytes, %v, %+v", n, err, r)
		}
	})
}

func BenchmarkReadRequest(b *testing.B) {
	text := "GET /path?query HTTP/1.1\r\nHost: myapp.localhost\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html\r\n" +
		"Accept-Language: en\r\nAccept-Encoding: gzip, deflate\r\nCookie: a=b; c=d\r\nConnection: keep-alive\r\n\r\n"
	src := strings.NewReader(text)
	br := bufio.NewReader(src)
	var r Request
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(text)
		br.Reset(src)
		if err := r.Read(br); err != nil {
			b.Fatal(err)
		}
	}
}
