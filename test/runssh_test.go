package test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"manifold/test/platform"
)

// The SSH form of `heroku run`: what it can beyond the other, and that it can
// what the other can.
func TestRunOverSSH(t *testing.T) {
	t.Parallel() // a platform of its own
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Fatal("the CLI needs ssh for this: apt-get install openssh-client")
	}
	p := own(t)
	p.Extra = append(p.Extra, "MANIFOLD_ATTACH_FORM=ssh", fmt.Sprint("MANIFOLD_ONEOFF_LIMIT=", oneOffLimit))
	if err := p.WithoutSample(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	oneByOne(t, p, []runTest{
		{"terminal", runner.sshTerminal}, {"exit codes", runner.sshExitCodes}, {"pipes", runner.sshPipes}, {"lost client", runner.sshLostClient},
		{"secret used twice", runner.sshSecretTwice}, {"limit", runner.limit},
	}...)
}

func (r runner) sshTerminal() {
	began := time.Now()
	c := inTerminal(r.T, r.command("run", "bash", "-a", r.app))
	c.expect(prompt)
	r.Logf("measured: heroku run bash to its prompt over SSH %.2f s", time.Since(began).Seconds())
	name := r.oneOffs()[0]
	c.enter("tty; stty size; echo $TERM $DYNO\n")
	c.expect(`/dev/pts/0\s+33 101\s+xterm-256color ` + name + `\s`)
	c.enter(`sh -c 'trap "stty size" WINCH; echo rea""dy; while :; do sleep 0.05; done'` + "\n")
	c.expect("ready")
	c.resize(50, 150)
	c.expect(`50 150\s`)
	c.enter("\x03")
	c.expect(prompt)
	c.enter("echo interrupted with $?\n")
	c.expect(`interrupted with 130\s`)
	c.enter("exit 3\n")
	if status := c.exit(); status != 0 {
		r.Errorf("the CLI exited with %d, want 0 without -x", status)
	}
	r.gone()
}

func (r runner) sshExitCodes() {
	for _, tc := range []struct {
		command string
		status  int
		output  string
	}{{"say it", 0, "said it\n"}, {"seq 20000 | tail -c 70000; (exit 5)", 5, ""}} {
		out, status := r.piped("", "run", "-x", "-a", r.app, "--", tc.command)
		if status != tc.status || tc.output != "" && out != tc.output || strings.Contains(out, "\uFFFF") {
			r.Errorf("%s: status %d, output %.200q; want %d, %q", tc.command, status, out, tc.status, tc.output)
		}
	}
	if out, status := r.piped("", "run:inside", "web.1", "-a", r.app, "--", "echo inside $DYNO"); status != 0 || out != "inside web.1\n" {
		r.Errorf("heroku run:inside: status %d, %q", status, out)
	}
	r.gone()
}

// sshPipes sends 100 MB of every byte there is through a dyno and back.
func (r runner) sshPipes() {
	blob := make([]byte, 100_000_000)
	_, _ = rand.Read(blob)
	cmd := r.command("run", "-a", r.app, "--", "cat")
	sum, n := sha256.New(), &counter{}
	var problems bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(blob), io.MultiWriter(sum, n), &problems
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if want := sha256.Sum256(blob); err != nil || !bytes.Equal(sum.Sum(nil), want[:]) {
		r.Errorf("%d bytes in, %d back, other ones: %v\n%s", len(blob), n.n, err, problems.String())
	}
	r.Logf("measured: %d MB piped through heroku run and back in %.1f s, byte-identical: %.1f MB/s each way", len(blob)/1_000_000, took.Seconds(), float64(len(blob))/1e6/took.Seconds())
	if out, status := r.piped("\x00\xff\x04", "run", "-a", r.app, "--", "wc -c; tty"); status != 0 || out != "3\nnot a tty\n" {
		r.Errorf("three bytes in: status %d, %q", status, out)
	}
	r.gone()
}

type counter struct{ n int }

func (c *counter) Write(p []byte) (int, error) { c.n += len(p); return len(p), nil }

func (r runner) sshLostClient() {
	c := inTerminal(r.T, r.command("run", "bash", "-a", r.app))
	c.expect(prompt)
	name := r.oneOffs()[0]
	if err := c.cmd.Process.Kill(); err != nil {
		r.Fatal(err)
	}
	c.exit()
	r.gone()
	r.logged("heroku[" + name + "]: Client connection closed. Sending SIGHUP to all processes")
}

func (r runner) sshSecretTwice() {
	_, attachURL := r.start(map[string]any{"attach": true, "command": "cat"})
	if !regexp.MustCompile(`^https://localhost:\d+/[\w-]{43}$`).MatchString(attachURL) {
		r.Fatalf("attach_url %q", attachURL)
	}
	conn := r.rendezvous(strings.Replace(attachURL, "https:", "rendezvous:", 1), "GET /"+attachURL[len(attachURL)-43:]+" HTTP/1.1\r\nUpgrade: tcp\r\n\r\n")
	head := make([]byte, 12)
	if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 101" {
		r.Fatalf("%q, %v", head, err)
	}
	req, _ := http.NewRequest("GET", attachURL, nil)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: r.trust()}}
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		r.Errorf("the second use of a secret: %s", res.Status)
	}
	conn.Close()
	r.gone()
}

// oneOffLimit is what the platform allows. One that ended counts until its host
// has put it away, so the tests before need more than they have at a time.
const oneOffLimit = 4

func (r runner) limit() {
	var names []string
	for range oneOffLimit {
		names = append(names, r.startWhenRoom("sleep 1000"))
	}
	out, status := r.piped("", "run", "-a", r.app, "--", "true")
	r.p.Refused(r, 422, "POST", "/apps/"+r.app+"/dynos", map[string]any{"command": "true"}, fmt.Sprintf("Cannot run more than %d Standard-1X one-off dynos at once", oneOffLimit))
	if status == 0 {
		r.Errorf("one more one-off dyno ran: %q", out)
	}
	for _, name := range names {
		r.p.Call(r, "POST", "/apps/"+r.app+"/dynos/"+name+"/actions/stop", nil, nil)
	}
	r.gone()
	r.startWhenRoom("true")
	r.gone()
}

// startWhenRoom starts a one-off dyno as soon as so many of those before are
// forgotten.
func (r runner) startWhenRoom(command string) (name string) {
	r.Helper()
	platform.Eventually(r, time.Minute, func() error {
		status, text := r.p.Request(r, "POST", "/apps/"+r.app+"/dynos", r.p.Token, map[string]any{"command": command})
		var d struct{ Name string }
		if err := json.Unmarshal(text, &d); status/100 != 2 || err != nil {
			return fmt.Errorf("%d %s", status, text)
		}
		name = d.Name
		return nil
	})
	return name
}
