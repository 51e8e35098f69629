package router

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"manifold"
)

// BenchmarkRouter sends the same requests, from the same client to the same
// dyno, through our router and through net/http/httputil.ReverseProxy with as
// many idle connections, in turns within one run. The ratio is theirs to ours
// in time per request; client and dyno share the processors with both.
func BenchmarkRouter(b *testing.B) {
	for _, c := range []struct {
		name    string
		clients int
		body    int
		answer  int
	}{
		{"GET_13B", 32, 0, 13},
		{"GET_64KiB", 32, 0, 64 << 10},
		{"POST_1KiB", 32, 1 << 10, 13},
	} {
		b.Run(c.name, func(b *testing.B) {
			dyno := benchDyno(b, c.answer)
			r := newRig(b, func(cfg *Config) { cfg.PerDyno = 10_000 })
			r.routes(nil, dyno)
			peer := reverseProxy(b, dyno)
			request := fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", appHost)
			if c.body > 0 {
				request = fmt.Sprintf("POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", appHost, c.body, strings.Repeat("x", c.body))
			}
			var ours, theirs time.Duration
			total := 0
			for b.Loop() {
				const round = 2000
				ours += drive(b, r.addr, request, c.clients, round)
				theirs += drive(b, peer, request, c.clients, round)
				total += round
				r.srv.ship.sent(r.srv.ship.batch("r")) // what the coordinator would take
			}
			b.ReportMetric(float64(total)/ours.Seconds(), "ours_req/s")
			b.ReportMetric(float64(total)/theirs.Seconds(), "ReverseProxy_req/s")
			b.ReportMetric(theirs.Seconds()/ours.Seconds(), "ratio")
		})
	}
}

// benchDyno answers at little cost, so that the proxies are what is measured.
func benchDyno(b *testing.B, n int) string {
	answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", n, strings.Repeat("x", n))
	return rawDyno(b, func(c net.Conn, br *bufio.Reader) {
		for {
			length := 0
			for {
				line, err := br.ReadSlice('\n')
				if err != nil {
					return
				}
				if len(line) == 2 {
					break
				}
				if n, ok := lengthOf(line); ok {
					length = n
				}
			}
			if _, err := br.Discard(length); err != nil {
				return
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	})
}

func reverseProxy(b *testing.B, dyno string) string {
	target := &url.URL{Scheme: "http", Host: dyno}
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport:     &http.Transport{MaxIdleConnsPerHost: 10_000, MaxIdleConns: 10_000, DisableCompression: true},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
	}
	srv := httptest.NewServer(p)
	b.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// drive sends n requests from some clients, each on one connection, and
// returns the time that took.
func drive(b *testing.B, addr, request string, clients, n int) time.Duration {
	var left atomic.Int64
	left.Store(int64(n))
	conns := make([]net.Conn, clients)
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
	}
	began := time.Now()
	done := make(chan error, clients)
	for _, c := range conns {
		go func() {
			br := bufio.NewReaderSize(c, 64<<10)
			for left.Add(-1) >= 0 {
				if _, err := io.WriteString(c, request); err != nil {
					done <- err
					return
				}
				if err := skipAnswer(br); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range conns {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(began)
}

func skipAnswer(br *bufio.Reader) error {
	length := 0
	for first := true; ; first = false {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
			return fmt.Errorf("answered %s", line)
		}
		if len(line) == 2 {
			break
		}
		if n, ok := lengthOf(line); ok {
			length = n
		}
	}
	_, err := br.Discard(length)
	return err
}

func lengthOf(line []byte) (int, bool) {
	digits, ok := bytes.CutPrefix(line, []byte("Content-Length: "))
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(digits)))
	return n, err == nil
}

// BenchmarkTable applies a table of 1,000 apps with two dynos each.
func BenchmarkTable(b *testing.B) {
	r := newRig(b, nil)
	table := manifold.RouteTable{Cluster: cluster}
	for i := range 1000 {
		route := manifold.Route{App: fmt.Sprint("app", i), Hosts: []string{fmt.Sprintf("app%d.localhost", i)}, WebQuantity: 2}
		for n := range 2 {
			route.Backends = append(route.Backends, manifold.Backend{
				Run: fmt.Sprintf("run-%d-%d", i, n), Dyno: manifold.DynoName("web", n+1), Addr: fmt.Sprintf("127.0.%d.%d:5000", i/256, i%256),
			})
		}
		table.Routes = append(table.Routes, route)
	}
	for b.Loop() {
		table.Revision++
		r.apply(table)
	}
}
