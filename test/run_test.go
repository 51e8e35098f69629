package test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"manifold/test/platform"
)

// runner is an app that commands are run in.
type runner struct {
	*testing.T
	p        *platform.Instance
	dir, app string
}

func (r runner) on(t *testing.T) runner { r.T = t; return r }

func (r runner) command(args ...string) *exec.Cmd {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	r.Cleanup(cancel)
	return r.p.HerokuCommand(ctx, r, r.dir, args...)
}

// piped runs the CLI without a terminal and returns its standard output and
// exit status.
func (r runner) piped(input string, args ...string) (string, int) {
	r.Helper()
	cmd := r.command(args...)
	var out, problems bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &problems
	status := exitStatus(r.T, cmd.Run())
	r.Logf("heroku %s: status %d; %d bytes; said %q", strings.Join(args, " "), status, out.Len(), problems.String())
	return out.String(), status
}

// oneOffs are the names of the one-off dynos there are.
func (r runner) oneOffs() (names []string) {
	r.Helper()
	var dynos []struct{ Name, State, Command string }
	r.p.Call(r, "GET", "/apps/"+r.app+"/dynos", nil, &dynos)
	for _, d := range dynos {
		if strings.HasPrefix(d.Name, "run.") {
			names = append(names, d.Name)
		}
	}
	return names
}

// gone waits until no one-off dyno is left.
func (r runner) gone() {
	r.Helper()
	platform.Eventually(r, 90*time.Second, func() error {
		if names := r.oneOffs(); len(names) > 0 {
			return fmt.Errorf("still there: %v", names)
		}
		return nil
	})
}

func (r runner) logged(line string) {
	r.Helper()
	platform.Eventually(r, time.Minute, func() error { return r.p.LogContains(r, r.app, line) })
}

// runTest is one of the tests of `heroku run`.
type runTest struct {
	name string
	test func(runner)
}

// oneByOne runs tests on one app.
func oneByOne(t *testing.T, p *platform.Instance, tests ...runTest) {
	r := runner{t, p, platform.Repository(t, map[string]string{
		"Procfile":         "web: python3 -m http.server $PORT\nsay: echo said\n",
		"requirements.txt": "",
		"marker":           "from the slug\n",
	}), p.CreateApp(t)}
	p.Push(t, r.dir, r.app)
	p.Answers(t, r.app, "/marker", "from the slug")
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) { tc.test(r.on(t)) })
	}
}

// `heroku run` and its kin by the unmodified CLI, in a real terminal and in
// pipes, against a real app. What waits for half a minute does so beside the
// rest.
func TestRun(t *testing.T) {
	p := running(t)
	t.Run("waits", func(t *testing.T) {
		t.Parallel()
		oneByOne(t, p, runTest{"nobody comes", runner.nobodyComes}, runTest{"detached client", runner.detachedClient})
	})
	t.Run("all else", func(t *testing.T) {
		t.Parallel()
		oneByOne(t, p, []runTest{
			{"terminal", runner.terminal}, {"time to prompt", runner.timeToPrompt}, {"exit codes", runner.exitCodes}, {"pipes", runner.pipes},
			{"command lines", runner.commandLines}, {"detached", runner.detached}, {"inside", runner.inside}, {"stop", runner.stop},
			{"lost client", runner.lostClient}, {"four interrupts", runner.fourInterrupts}, {"bad clients", runner.badClients},
			{"time to live", runner.timeToLive}, {"app deleted", runner.appDeleted},
		}...)
	})
}

// prompt is what the shell of the stack shows.
const prompt = `\$ $`

func (r runner) terminal() {
	began := time.Now()
	c := inTerminal(r.T, r.command("run", "bash", "-a", r.app))
	c.expect(prompt)
	r.Logf("measured: heroku run bash to its prompt %.2f s", time.Since(began).Seconds())
	names := r.oneOffs()
	if len(names) != 1 {
		r.Fatalf("one-off dynos: %v", names)
	}
	name := names[0]
	c.enter("tty; stty size; echo $TERM $DYNO $COLUMNS $LINES; cat marker; id -un\n")
	c.expect(`/dev/pts/0\s+33 101\s+xterm-256color ` + name + ` 101 33\s+from the slug\s+`) // the CLI's raw mode leaves a local \\r before each newline
	c.enter("cat /proc/sys/kernel/ostype -\n")
	c.expect("Linux") // cat has the terminal

	platform.Eventually(r, time.Minute, func() error { // its host says that it is up a little later
		began = time.Now()
		out, err := r.p.Heroku(r, r.dir, "ps", "-a", r.app)
		if err != nil || !strings.Contains(out, "run: one-off processes (1)") || !strings.Contains(out, name+" (Standard-1X): up") || !strings.Contains(out, "bash") {
			return fmt.Errorf("heroku ps: %v\n%s", err, out)
		}
		return nil
	})
	r.Logf("measured: heroku ps %.2f s", time.Since(began).Seconds())
	c.enter("\x03")
	c.expect(prompt)
	c.enter("echo interrupted with $?\n")
	c.expect(`interrupted with 130\s`)
	c.enter("sh -c 'echo rea''dy; cat'\n")
	c.expect("ready")
	c.enter("from the keyboard\n\x04")
	c.expect(`from the keyboard\s+from the keyboard\s`)
	c.enter("exit 3\n")
	if status := c.exit(); status != 0 {
		r.Errorf("the CLI exited with %d, want 0 without -x", status)
	}
	r.gone()
	for _, line := range []string{
		"heroku[" + name + "]: Awaiting client", "heroku[" + name + "]: Starting process with command `bash`",
		"heroku[" + name + "]: State changed from starting to up", "heroku[" + name + "]: Process exited with status 3",
		"heroku[" + name + "]: State changed from up to complete", "app[api]: Starting process with command `bash` by user ",
	} {
		r.logged(line)
	}
	if err := r.p.LogContains(r, r.app, "from the key"); err == nil {
		r.Error("what was typed into the terminal is in the log")
	}
}

// timeToPrompt is how long a person waits beside what the CLI takes.
func (r runner) timeToPrompt() {
	var alone []time.Duration
	for range 9 {
		began := time.Now()
		_, attachURL := r.start(map[string]any{"attach": true, "command": "bash", "env": map[string]any{"TERM": "xterm", "COLUMNS": 80, "LINES": 24}})
		u, _ := url.Parse(attachURL)
		conn := r.rendezvous(attachURL, u.Path[1:]+"\r\n")
		r.reads(conn, "$ ")
		alone = append(alone, time.Since(began))
		conn.Close()
	}
	slices.Sort(alone)
	r.Logf("measured: the platform's share of the time to a prompt, from POST on, %d ms (median of 9; %d to %d)", alone[4].Milliseconds(), alone[0].Milliseconds(), alone[8].Milliseconds())
	r.gone()
}

func (r runner) exitCodes() {
	for _, tc := range []struct {
		command string
		status  int
		output  string
	}{
		{"true", 0, ""}, {"sh -c 'kill -9 $$'", 137, ""},
		{"seq 3; (exit 7)", 7, "1\n2\n3\n"},
		{"seq 20000 | tail -c 70000; (exit 5)", 5, ""},
	} {
		out, status := r.piped("", "run", "-x", "-a", r.app, "--", tc.command)
		if status != tc.status || tc.output != "" && out != tc.output {
			r.Errorf("%s: status %d, output %.200q; want %d, %q", tc.command, status, out, tc.status, tc.output)
		}
		if strings.Contains(out, "exit-status") || strings.Contains(out, "\uFFFF") {
			r.Errorf("%s: the marker shows: %q", tc.command, out[max(0, len(out)-200):])
		}
	}
	if out, status := r.piped("", "run", "-x", "--no-tty", "-a", r.app, "--", "echo plain; (exit 9)"); status != 9 || out != "plain\n" {
		r.Errorf("without a terminal: status %d, output %q", status, out)
	}
	r.gone()
}

func (r runner) pipes() {
	if out, status := r.piped("hello\nworld\n", "run", "--no-tty", "-a", r.app, "--", "tr a-z A-Z"); status != 0 || out != "HELLO\nWORLD\n" {
		r.Errorf("small input: status %d, %q", status, out)
	}
	if out, status := r.piped("", "run", "--no-tty", "-a", r.app, "--", "wc -c; tty"); status != 0 || out != "0\nnot a tty\n" {
		r.Errorf("no input: status %d, %q", status, out)
	}
	text := strings.Repeat("a line of text, and its end\n", 100_000)
	if out, status := r.piped(text, "run", "--no-tty", "-a", r.app, "--", "cat"); status != 0 || out != text {
		r.Errorf("%d bytes in, %d back, status %d", len(text), len(out), status)
	}
	// With a terminal in the dyno, input is echoed and Ctrl-D its end.
	if out, status := r.piped("hello\n", "run", "-a", r.app, "--", "cat; tty"); status != 0 || out != "hello\nhello\n/dev/pts/0\n" {
		r.Errorf("into a terminal: status %d, %q", status, out)
	}
	// A command that does not read what it is given.
	if out, status := r.piped(text, "run", "--no-tty", "-a", r.app, "--", "echo done"); status != 0 || out != "done\n" {
		r.Errorf("input nobody reads: status %d, %q", status, out)
	}
	r.gone()
}

func (r runner) commandLines() {
	if out, _ := r.piped("", "run", "-a", r.app, "say", "it", "loud"); out != "said it loud\n" {
		r.Errorf("a process type as the first word: %q", out)
	}
	if out, _ := r.piped("", "run", "-a", r.app, "-e", "COLOUR=green;SHAPE=round", "-s", "standard-2x", "--", "echo $COLOUR $SHAPE $HOME; ulimit -u; cat /sys/fs/cgroup/memory.max"); out != "green round /app\n512\n1073741824\n" {
		r.Errorf("environment and size: %q", out)
	}
	r.gone()
}

func (r runner) detached() {
	out, err := r.p.Heroku(r, r.dir, "run:detached", "-a", r.app, "--", "echo in the back; sleep 1; echo ground; exit 4")
	name := regexp.MustCompile(`run\.\d+`).FindString(out)
	if err != nil || name == "" {
		r.Fatalf("heroku run:detached: %v\n%s", err, out)
	}
	r.logged("app[" + name + "]: in the back")
	r.logged("app[" + name + "]: ground")
	r.logged("heroku[" + name + "]: Process exited with status 4")
	r.gone()
}

func (r runner) inside() {
	claims(r.T, "run:inside", "a command and a shell beside the running web process, exit status")
	out, status := r.piped("", "run:inside", "web.1", "-x", "-a", r.app, "--", "echo inside $DYNO; ps ax | grep -c '[h]ttp.server'; (exit 6)")
	if status != 6 || out != "inside web.1\n1\n" {
		r.Errorf("heroku run:inside: status %d, %q", status, out)
	}
	c := inTerminal(r.T, r.command("run:inside", "web.1", "bash", "-a", r.app))
	c.expect(prompt)
	c.enter("stty size; id -u; cat /proc/self/status | grep CapBnd; touch /bin/x\n")
	c.expect(`33 101\s+1000\s+CapBnd:\s0000000000000000\s+.*Permission denied`)
	c.enter("exit\n")
	c.exit()
	if status, body, err := r.p.Visit(r.app, "/marker"); status != 200 || err != nil {
		r.Errorf("the dyno does not answer any more: %d %q %v", status, body, err)
	}
}

func (r runner) stop() {
	claims(r.T, "ps:stop DYNO", "a shell on a terminal was told to end, its dyno is gone", "ps:stop TYPE", "both one-off dynos of the type are gone")
	c := inTerminal(r.T, r.command("run", "bash", "-a", r.app))
	c.expect(prompt)
	name := r.oneOffs()[0]
	if out, err := r.p.Heroku(r, r.dir, "ps:stop", "--dyno-name", name, "-a", r.app); err != nil {
		r.Fatalf("heroku ps:stop %s: %v\n%s", name, err, out)
	}
	c.exit()
	r.gone()
	r.logged("heroku[" + name + "]: Stopping all processes with SIGTERM")
	r.logged("heroku[" + name + "]: Process exited with status 129") // by itself: it was not killed after its grace
	for range 2 {
		r.start(map[string]any{"command": "sleep 1000"})
	}
	if out, err := r.p.Heroku(r, r.dir, "ps:stop", "--process-type", "run", "-a", r.app); err != nil {
		r.Errorf("heroku ps:stop --process-type run: %v\n%s", err, out)
	}
	r.gone()
}

func (r runner) lostClient() {
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

// A program that wants to outlive its client does, and is told of.
func (r runner) detachedClient() {
	name, attachURL := r.start(map[string]any{"attach": true, "command": "trap '' HUP; echo ready; sleep 1000", "env": map[string]any{"TERM": "xterm", "COLUMNS": 80, "LINES": 24}})
	u, _ := url.Parse(attachURL)
	conn := r.rendezvous(attachURL, u.Path[1:]+"\r\n")
	r.reads(conn, "ready\r\n")
	conn.Close()
	r.logged("heroku[" + name + "]: Error R16 (Detached) -> An attached process is not responding to SIGHUP after its external connection was closed.")
	if names := r.oneOffs(); len(names) != 1 || names[0] != name {
		r.Errorf("one-off dynos after R16: %v", names)
	}
	r.p.Call(r, "POST", "/apps/"+r.app+"/dynos/"+name+"/actions/stop", nil, nil)
	r.gone()
}

// Four Ctrl-C within a second make the CLI give up, whatever the program does.
func (r runner) fourInterrupts() {
	c := inTerminal(r.T, r.command("run", "-a", r.app, "--", "trap '' INT; echo rea''dy; sleep 1000"))
	c.expect("ready")
	// One by one, until four of them were so quick: the machine may stand still in between.
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			_, _ = io.WriteString(c.master, "\x03") // the CLI may be gone
			select {
			case <-over:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	if status := c.exit(); status != 1 {
		r.Errorf("the CLI exited with %d", status)
	}
	r.gone()
}

// rendezvous is a client without the CLI.
func (r runner) rendezvous(attachURL, line string) *tls.Conn {
	r.Helper()
	u, err := url.Parse(attachURL)
	if err != nil || u.Scheme != "rendezvous" || u.Port() == "" || len(u.Path) < 40 {
		r.Fatalf("attach_url %q: %v", attachURL, err)
	}
	conn, err := tls.Dial("tcp", u.Host, r.trust())
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		r.Fatal(err)
	}
	if _, err := io.WriteString(conn, line); err != nil && len(line) < 1000 { // a long one may be cut short
		r.Fatal(err)
	}
	return conn
}

// reads reads from a session until it ends with text.
func (r runner) reads(conn *tls.Conn, text string) {
	r.Helper()
	for shown := ""; !strings.HasSuffix(shown, text); {
		buf := make([]byte, 1000)
		n, err := conn.Read(buf)
		if err != nil {
			r.Fatalf("no %q: %v after %q", text, err, shown)
		}
		shown += string(buf[:n])
	}
}

// trust is what a client of the platform trusts.
func (r runner) trust() *tls.Config {
	r.Helper()
	bundle, err := os.ReadFile(r.p.ClientEnv(r)["NODE_EXTRA_CA_CERTS"])
	if err != nil {
		r.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(bundle)
	return &tls.Config{RootCAs: pool}
}

func (r runner) start(body map[string]any) (name, attachURL string) {
	r.Helper()
	var d struct {
		Name string
		URL  string `json:"attach_url"`
	}
	r.p.Call(r, "POST", "/apps/"+r.app+"/dynos", body, &d)
	return d.Name, d.URL
}

func (r runner) badClients() {
	_, attachURL := r.start(map[string]any{"attach": true, "command": "echo once; cat", "env": map[string]any{"COLUMNS": 80, "LINES": 24}})
	u, _ := url.Parse(attachURL)
	secret := u.Path[1:]
	strangers := []*tls.Conn{
		r.rendezvous(attachURL, "\r\n"), r.rendezvous(attachURL, secret[:len(secret)-1]+"\r\n"),
		r.rendezvous(attachURL, "GET / HTTP/1.1\r\n\r\n"), r.rendezvous(attachURL, strings.Repeat("x", 100_000)),
	}
	user := r.rendezvous(attachURL, secret+"\r\n")
	text := make([]byte, len("rendezvous\r\nonce\r\n"))
	n, err := io.ReadFull(user, text)
	if string(text[:n]) != "rendezvous\r\nonce\r\n" {
		r.Errorf("the user got %q, %v", text[:n], err)
	}
	twice := r.rendezvous(attachURL, secret+"\r\n")
	for i, conn := range append(strangers, twice) {
		text, _ := io.ReadAll(conn)
		if strings.Contains(string(text), "once") {
			r.Errorf("stranger %d got %q", i, text)
		}
	}
	user.Close()
	r.gone()
	r.p.Refused(r, 422, "POST", "/apps/"+r.app+"/dynos", map[string]any{"attach": true}, "what to run")
	r.p.Refused(r, 422, "POST", "/apps/"+r.app+"/dynos", map[string]any{"command": "true", "size": "enormous"}, "is not one of Eco")
	r.p.Refused(r, 404, "POST", "/apps/"+r.app+"/dynos/web.9", map[string]any{"command": "ls"}, "heroku ps")
	r.p.Refused(r, 404, "POST", "/apps/nobody-has-this/dynos", map[string]any{"command": "ls"}, "no app of yours")
}

func (r runner) timeToLive() {
	name, _ := r.start(map[string]any{"command": "echo begun; exec sleep 1000", "time_to_live": 8})
	r.logged("app[" + name + "]: begun")
	r.gone()
	r.logged("heroku[" + name + "]: Process exited with status 143")
}

// appDeleted comes last: it takes the app away under a user's hands.
func (r runner) appDeleted() {
	_, attachURL := r.start(map[string]any{"attach": true, "command": "echo begun; cat", "env": map[string]any{"COLUMNS": 80, "LINES": 24}})
	u, _ := url.Parse(attachURL)
	user := r.rendezvous(attachURL, u.Path[1:]+"\r\n")
	r.reads(user, "begun\r\n")
	r.p.DeleteApp(r.app)
	if rest, err := io.ReadAll(user); err != nil {
		r.Errorf("the session of an app that is gone does not end: %v after %q", err, rest)
	}
	r.p.Refused(r, 404, "POST", "/apps/"+r.app+"/dynos", map[string]any{"command": "ls"}, "no app of yours")
}

func (r runner) nobodyComes() {
	began := time.Now()
	name, _ := r.start(map[string]any{"attach": true, "command": "echo never run"})
	platform.Eventually(r, 2*time.Minute, func() error {
		return r.p.LogContains(r, r.app, "heroku["+name+"]: Error R13 (Attach error) -> Failed to attach to process")
	})
	if took := time.Since(began); took < 25*time.Second {
		r.Errorf("R13 after %s", took)
	}
	r.gone()
}
