package drain

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"manifold/test/port"
)

// rsyslog is the real one, as a process of its own.
type rsyslog struct {
	t         *testing.T
	dir, addr string
	tls       bool
	cmd       *exec.Cmd
}

func newRsyslog(t *testing.T, certPEM, keyPEM []byte) *rsyslog {
	t.Helper()
	s := &rsyslog{t: t, dir: t.TempDir(), addr: port.Closed(t), tls: certPEM != nil}
	must(t, os.WriteFile(filepath.Join(s.dir, "cert.pem"), certPEM, 0o600))
	must(t, os.WriteFile(filepath.Join(s.dir, "key.pem"), keyPEM, 0o600))
	s.start()
	t.Cleanup(func() { s.stop(syscall.SIGKILL) })
	return s
}

const rsyslogConfig = `
global(workDirectory="DIR" maxMessageSize="64k" SECURITY)
module(load="imtcp" DRIVER)
template(name="raw" type="string" string="%rawmsg%\n")
ruleset(name="all") { action(type="omfile" file="DIR/out" template="raw") }
input(type="imtcp" address="127.0.0.1" port="PORT" ruleset="all")
`

func (s *rsyslog) start() {
	s.t.Helper()
	security, driver := "", ""
	if s.tls {
		security = `DefaultNetstreamDriver="gtls" DefaultNetstreamDriverCAFile="DIR/cert.pem" DefaultNetstreamDriverCertFile="DIR/cert.pem" DefaultNetstreamDriverKeyFile="DIR/key.pem"`
		driver = `StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="anon"`
	}
	config := strings.NewReplacer("SECURITY", security, "DRIVER", driver).Replace(rsyslogConfig)
	_, number, _ := net.SplitHostPort(s.addr)
	config = strings.NewReplacer("DIR", s.dir, "PORT", number).Replace(config)
	must(s.t, os.WriteFile(filepath.Join(s.dir, "conf"), []byte(config), 0o600))
	s.cmd = exec.Command("rsyslogd", "-n", "-f", filepath.Join(s.dir, "conf"), "-i", filepath.Join(s.dir, "pid"))
	var said bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = &said, &said
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start rsyslog (apt-get install rsyslog rsyslog-gnutls): %v", err)
	}
	for deadline := time.Now().Add(patience); ; <-time.After(10 * time.Millisecond) {
		if conn, err := net.Dial("tcp", s.addr); err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("rsyslog does not listen: %s", said.String())
		}
	}
}

func (s *rsyslog) stop(sig syscall.Signal) {
	_ = s.cmd.Process.Signal(sig)
	_ = s.cmd.Wait()
}

func (s *rsyslog) got() []string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "out"))
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func TestRsyslog(t *testing.T) {
	for _, scheme := range []string{"syslog", "syslog+tls"} {
		t.Run(scheme, func(t *testing.T) {
			cert, key, roots := certificate(t)
			if scheme == "syslog" {
				cert, key = nil, nil
			}
			s := newRsyslog(t, cert, key)
			r := newRig(t, func(c *Config) { c.Roots = roots })
			r.run()
			d := r.add(scheme + "://" + s.addr)
			arrives := func(n uint64) {
				t.Helper()
				r.eventually("the lines do not arrive", func() bool {
					got := s.got()
					return number(got[len(got)-1]) == n
				})
			}
			r.write(1000, strings.Repeat("ü", 4900))
			arrives(1000)
			form := regexp.MustCompile(`^<190>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00 ` + d.Token + ` app web\.1 - - 1 (ü+)$`)
			if f := form.FindStringSubmatch(s.got()[0]); f == nil || len(f[1]) != 9800 {
				t.Errorf("the first message is %.200q", s.got()[0])
			}
			s.stop(syscall.SIGTERM)
			r.write(2000, "")
			s.start()
			r.write(2000, "")
			arrives(5000)
			r.stop()
			r.write(1000, "")
			r.run()
			r.write(1000, "")
			arrives(7000)
			again := inOrder(t, s.got(), 1, 7001)
			t.Logf("measured: 7000 lines to rsyslog over %s through a restart of each side: none lost, %d came again", scheme, again)
		})
	}
}

// A server that accepts and never reads holds up its own drain only.
func TestServerThatDoesNotRead(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	live := newReceiver(t, nil, nil)
	r := newRig(t)
	r.run()
	r.add("syslog://" + ln.Addr().String())
	r.add("http://" + live.addr)
	r.write(20_000, strings.Repeat("x", 500))
	r.arrives(live, 20_000)
	began := time.Now()
	r.stop() // ends although a write hangs
	if took := time.Since(began); took > writeTime*2/3 {
		t.Errorf("the room took %s to end", took)
	}
}

// Nobody is dialled whom the guard does not let pass, and the owner learns why.
func TestGuardedDrain(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	go func() {
		if conn, err := ln.Accept(); err == nil {
			t.Error("somebody connected")
			conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	r := newRig(t, func(c *Config) { c.Guard.Loopback = false })
	r.run()
	for _, url := range []string{"syslog://localhost:" + port, "http://127.0.0.1:" + port + "/?token=hidden"} {
		d := r.add(url)
		r.write(1, "")
		r.logged("Log drain "+d.Token+" is not served: it leads to ", "MANIFOLD_DRAIN_LOOPBACK")
	}
	r.stop()
}
