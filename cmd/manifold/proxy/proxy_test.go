package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"manifold/coordinator/pki"
)

// remote is a coordinator as far as it can be seen from here: TLS with a
// certificate for localhost by a CA of its own.
func remote(t *testing.T, h http.Handler) (addr string, ca *x509.CertPool) {
	t.Helper()
	kept := map[string][]byte{}
	authority, err := pki.Open(func(key string, make func() ([]byte, error)) ([]byte, error) {
		if kept[key] == nil {
			made, err := make()
			if err != nil {
				return nil, err
			}
			kept[key] = made
		}
		return kept[key], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Server("localhost")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.StartTLS()
	t.Cleanup(server.Close)
	ca = x509.NewCertPool()
	ca.AppendCertsFromPEM(authority.PEM())
	return server.Listener.Addr().String(), ca
}

func proxied(t *testing.T, cfg Config) Config {
	t.Helper()
	for _, l := range []*net.Listener{&cfg.API, &cfg.TLS, &cfg.Attach} {
		var err error
		if *l, err = Listen("localhost:0"); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("the proxy does not end")
		}
	})
	return cfg
}

// A request in plain HTTP gets there with its token, and the URLs that come
// back lead through the other door, over TLS to the coordinator itself.
func TestProxy(t *testing.T) {
	addr, ca := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme := "http"
		if r.TLS != nil {
			scheme = "https"
		}
		fmt.Fprintf(w, "%s %s://%s%s\n", r.Header.Get("Authorization"), scheme, r.Host, r.URL.Path)
	}))
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	cfg := proxied(t, Config{RemoteTLS: addr, RemoteAttach: echo.Addr().String(), CA: ca})

	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+cfg.API.Addr().String()+"/streams/x", nil)
	req.Header.Set("Authorization", "Bearer secret")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(res.Body)
	res.Body.Close()
	_, port, _ := net.SplitHostPort(cfg.TLS.Addr().String())
	want := "Bearer secret https://localhost:" + port + "/streams/x"
	if strings.TrimSpace(string(text)) != want {
		t.Fatalf("%s, want %s", text, want)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca}}}
	defer client.CloseIdleConnections()
	res, err = client.Get(strings.Fields(want)[2]) // the URL as it came back
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("the URL that came back: %v %v", res, err)
	}
	res.Body.Close()

	conn, err := net.Dial("tcp", cfg.Attach.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "there and back\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "there and back\n" {
		t.Errorf("%q %v", line, err)
	}
}

// A coordinator of another CA gets no token, and its user reads why.
func TestProxyTrustsOneCA(t *testing.T) {
	reached := false
	addr, _ := remote(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	cfg := proxied(t, Config{RemoteTLS: addr, RemoteAttach: addr, CA: x509.NewCertPool()})
	res, err := http.Get("http://" + cfg.API.Addr().String() + "/account")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, _ := io.ReadAll(res.Body); res.StatusCode != 502 || !strings.Contains(string(text), "bad_gateway") || reached {
		t.Errorf("%d %s, reached: %t", res.StatusCode, text, reached)
	}
}

func TestListenOnLoopbackOnly(t *testing.T) {
	if l, err := Listen(":0"); err == nil {
		l.Close()
		t.Error("listens for everybody")
	}
}
