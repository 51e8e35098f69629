package logs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"manifold"
	"manifold/test/bubble"
)

// event is one server-sent event as a browser's parser would see it.
type event struct{ id, data string }

// parseEvents reads a stream by the rules of WHATWG HTML 9.2.6: a line ends at
// CR, LF or both, an empty line ends the event.
func parseEvents(t testing.TB, body string) (events []event, comments int) {
	t.Helper()
	body = strings.ReplaceAll(strings.ReplaceAll(body, "\r\n", "\n"), "\r", "\n")
	var e event
	var data []string
	for l := range strings.Lines(body) {
		field, value, _ := strings.Cut(strings.TrimSuffix(l, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case l == "\n":
			if data != nil {
				e.data = strings.Join(data, "\n")
				events = append(events, e)
			}
			e, data = event{}, nil
		case field == "":
			comments++
		case field == "id":
			e.id = value
		case field == "data":
			data = append(data, value)
		case field == "retry" && value == "100" && len(events) == 0 && e.id == "":
		default:
			t.Errorf("unknown field %q", l)
		}
	}
	return events, comments
}

func get(t testing.TB, h http.Handler, token, lastID string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("GET", "/streams/"+token+"?tail=true", nil)
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestStreamWithoutTailEndsCleanly(t *testing.T) {
	h := open(t, t.TempDir())
	add(t, h, numbered("r1/app", "web.1", 1, 5))
	srv := httptest.NewServer(h)
	defer srv.Close()
	res, err := http.Get(srv.URL + "/streams/" + h.NewSession(appA, "", 2, false, "", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("the end is not clean: %v", err)
	}
	if got := res.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/event-stream") {
		t.Fatal(got)
	}
	events, _ := parseEvents(t, string(body))
	if !strings.HasPrefix(string(body), comeBack) {
		t.Errorf("who reads is not told that nothing follows: %q", body)
	}
	if len(events) != 2 || events[0].id != "4" || !strings.HasSuffix(events[0].data, " app[web.1]: 4") {
		t.Fatalf("%q", body)
	}
}

func TestTailOverHTTPAndResume(t *testing.T) {
	h := open(t, t.TempDir())
	add(t, h, numbered("r1/app", "web.1", 1, 3))
	srv := httptest.NewServer(h)
	defer srv.Close()
	token := h.NewSession(appA, "", 100, true, "", "")
	read := func(lastID string, n int) []string {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "GET", srv.URL+"/streams/"+token, nil)
		if lastID != "" {
			req.Header.Set("Last-Event-ID", lastID)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var ids []string
		for lines := bufio.NewScanner(res.Body); len(ids) < n && lines.Scan(); {
			if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				if ids = append(ids, id); len(ids) == 3 && lastID == "" {
					add(t, h, numbered("r1/app", "web.1", 4, 5)) // while it watches
				}
			}
		}
		return ids
	}
	same(t, read("", 5), "1", "2", "3", "4", "5")
	add(t, h, numbered("r1/app", "web.1", 6, 7)) // while nobody does
	same(t, read("5", 2), "6", "7")
	same(t, read("999999", 7), "1", "2", "3", "4", "5", "6", "7") // of another time
	same(t, read("-x", 7), "1", "2", "3", "4", "5", "6", "7")
}

func TestHostileTextCannotBreakFraming(t *testing.T) {
	h := open(t, t.TempDir())
	hostile := []string{
		"a\n\ndata: fake\n\n", "b\rid: 77\r\rdata: fake\r\r", "\r\n\r\n", "\x00\xff\xfe\x80", "",
		"\u2028\u2029\u0085 end", "event: x", ": c", strings.Repeat("\xff", 10_000), "retry: 1",
	}
	s := manifold.LogStream{ID: "r/app", App: appA, Source: "app", Process: "web.1"}
	for i, text := range hostile {
		s.Lines = append(s.Lines, manifold.LogLine{Seq: uint64(i + 1), Time: time.Now(), Text: text})
	}
	add(t, h, s)
	h.Write(appA, "app", "api", "w\rx\n\nid: 3\n\n")
	w := get(t, h, h.NewSession(appA, "", 1500, false, "", ""), "")
	events, comments := parseEvents(t, w.Body.String())
	if comments != 0 {
		t.Fatalf("%d comments", comments)
	}
	for i, e := range events {
		if e.id != strconv.Itoa(i+1) || strings.Contains(e.data, "\n") || len(e.data) > 33+len("app[web.1]: ")+manifold.MaxLogLine {
			t.Fatalf("event %d: id %s, %d bytes: %.100q", i+1, e.id, len(e.data), e.data)
		}
		if !strings.Contains(e.data, " app[web.1]: ") && !strings.Contains(e.data, " app[api]: ") {
			t.Fatalf("%q", e.data)
		}
	}
	if len(events) < len(hostile)+3 {
		t.Fatalf("%d events", len(events))
	}
}

func TestHeartbeatAndEndOfTail(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h, err := Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		token := h.NewSession(appA, "", 100, true, "", "")
		w := httptest.NewRecorder()
		done := make(chan struct{})
		go func() {
			defer close(done)
			h.ServeHTTP(w, httptest.NewRequest("GET", "/streams/"+token, nil))
		}()
		time.Sleep(20*time.Minute + time.Second) // of the bubble's time
		h.Close()
		<-done
		if _, beats := parseEvents(t, w.Body.String()); beats != 60 {
			t.Fatalf("%d heartbeats in 20 minutes", beats)
		}
	})
}

func TestSessionsExpireWhenUnused(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h, err := Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		token, other := h.NewSession(appA, "", 1, false, "", ""), h.NewSession(appA, "", 1, false, "", "")
		if token == other || len(token) < 26 {
			t.Fatalf("tokens %s, %s", token, other)
		}
		time.Sleep(4 * time.Minute)
		if w := get(t, h, token, ""); w.Code != 200 {
			t.Fatal(w.Code)
		}
		time.Sleep(4 * time.Minute)
		if w := get(t, h, token, ""); w.Code != 200 {
			t.Fatal("use did not renew it")
		}
		if w := get(t, h, other, ""); w.Code != 404 {
			t.Fatalf("unused session answered %d", w.Code)
		}
		time.Sleep(6 * time.Minute)
		if w := get(t, h, token, ""); w.Code != 404 {
			t.Fatal(w.Code)
		}
		h.sweepOnce(time.Now())
		if n := len(h.sessions.byToken); n != 0 {
			t.Fatalf("%d sessions left", n)
		}
		for range maxSessions + 10 {
			h.NewSession(appA, "", 1, false, "", "")
		}
		if n := len(h.sessions.byToken); n > maxSessions {
			t.Fatalf("%d sessions", n)
		}
	})
}

func TestSessionShowsOneAppOnly(t *testing.T) {
	h := open(t, t.TempDir())
	add(t, h, numbered("r1/app", "web.1", 1, 1))
	h.Write("other", "app", "api", "secret")
	w := get(t, h, h.NewSession(appA, "", 1500, false, "", ""), "")
	if strings.Contains(w.Body.String(), "secret") {
		t.Fatal(w.Body.String())
	}
	for _, token := range []string{"", "x", "../x", strings.Repeat("A", 26)} {
		if w := get(t, h, token, ""); w.Code != 404 {
			t.Errorf("token %q: %d", token, w.Code)
		}
	}
	token := h.NewSession("other", "", 10, true, "", "")
	if err := h.Forget("other"); err != nil {
		t.Fatal(err)
	}
	if w := get(t, h, token, ""); w.Code != 404 {
		t.Fatal(w.Code)
	}
	if w := get(t, h, h.NewSession("other", "", 10, true, "", ""), ""); w.Code != 404 {
		t.Fatal(w.Code)
	}
}

// Once Revoke has returned no line that comes then is read by the user's
// streams, not even in the moment before they end.
func TestRevokedStreamsReadNothingMore(t *testing.T) {
	h := open(t, t.TempDir())
	srv := httptest.NewServer(h)
	defer srv.Close()
	for n := range 300 {
		h.Write(appA, "app", "api", "begin")
		res, err := http.Get(srv.URL + "/streams/" + h.NewSession(appA, "eve", 1, true, "", ""))
		if err != nil {
			t.Fatal(err)
		}
		body := bufio.NewReader(res.Body)
		if _, err := body.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		h.Revoke(appA, "eve")
		h.Write(appA, "app", "api", "secret")
		rest, _ := io.ReadAll(body)
		res.Body.Close()
		if strings.Contains(string(rest), "secret") {
			t.Fatalf("stream %d goes on: %s", n, rest)
		}
	}
}

// A reader that stops reading is let go of, and costs no writer and no other
// reader anything meanwhile.
func TestReaderThatStopsReading(t *testing.T) {
	h := open(t, t.TempDir())
	h.stuck = 300 * time.Millisecond
	srv := httptest.NewServer(h)
	defer srv.Close()
	token := h.NewSession(appA, "", 0, true, "", "")
	res, err := http.Get(srv.URL + "/streams/" + token) // and no more of it is read
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	other, err := h.Subscribe(appA, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	const total = 20_000
	text := strings.Repeat("x", 1000)
	for n, seen := uint64(1), uint64(0); n <= total; n += 500 {
		s := numbered("r1/app", "web.1", n, n+499)
		for i := range s.Lines {
			s.Lines[i].Text = text
		}
		add(t, h, s)
		for seen < n+499 {
			lines, err := other.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range lines {
				if seen++; l.ID != seen {
					t.Fatalf("line %d where %d should be: %.80s", l.ID, seen, l.Text)
				}
			}
		}
	}
	open := func() int {
		h.sessions.mu.Lock()
		defer h.sessions.mu.Unlock()
		return h.sessions.byToken[token].open
	}
	for deadline := time.Now().Add(patience); open() > 0; <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the stream is served still")
		}
	}
}

// A client that comes back with an id whose next lines are gone is told how many
// it missed, and gets the rest.
func TestStaleEventID(t *testing.T) {
	h := open(t, t.TempDir())
	const total = 16_000
	text := strings.Repeat("x", 1000)
	for n := uint64(1); n <= total; n += 500 {
		s := numbered("r1/app", "web.1", n, n+499)
		for i := range s.Lines {
			s.Lines[i].Text = text
		}
		add(t, h, s)
	}
	token := h.NewSession(appA, "", 10, false, "", "")
	events, _ := parseEvents(t, get(t, h, token, "5").Body.String())
	missed := 0
	_, note, _ := strings.Cut(events[0].data, "This tail session dropped ")
	if _, err := fmt.Sscan(note, &missed); err != nil || missed == 0 || missed+len(events)-1 != total-5 {
		t.Errorf("%d events, the first %.100q; want %d lines together", len(events), events[0].data, total-5)
	}
	if last := events[len(events)-1].id; last != strconv.Itoa(total) {
		t.Errorf("the last id is %s", last)
	}
	for _, id := range []string{"0", "99999999999999999999999", "1e3", " 7"} { // none of ours: as if it came first
		if events, _ := parseEvents(t, get(t, h, token, id).Body.String()); len(events) != 10 {
			t.Errorf("id %q: %d events", id, len(events))
		}
	}
	if events, _ := parseEvents(t, get(t, h, token, strconv.Itoa(total)).Body.String()); len(events) != 0 && events[0].id == "" {
		t.Errorf("the newest id: %v", events)
	}
}

func TestKeepIsASetting(t *testing.T) {
	h, err := OpenKeeping(t.TempDir(), Keep{Lines: 7, Time: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	s := numbered("r1/app", "web.1", 1, 20)
	s.Lines[15].Time = time.Now().Add(-2 * time.Hour)
	add(t, h, s)
	same(t, recent(t, h, Filter{}, 1500), "app[web.1]: 14", "app[web.1]: 15", "app[web.1]: 17", "app[web.1]: 18", "app[web.1]: 19", "app[web.1]: 20")
}
