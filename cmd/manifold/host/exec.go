package host

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"manifold"
)

// Exit is an error that only says with which status to exit: all else was said
// already.
type Exit struct{ Status int }

func (e *Exit) Error() string { return fmt.Sprintf("exit status %d", e.Status) }

func (t *tool) execCommand() *cobra.Command {
	var noTerminal bool
	cmd := &cobra.Command{
		Use:   "exec [flags] DYNO [COMMAND [ARG...]]",
		Short: "Run a shell, or a command, inside a running dyno",
		Long: `Run a shell, or a command, inside a running dyno: as its user, in its
namespaces and under its limits, with its config vars. Nothing of the host's
enters the dyno but the process, and it ends with the dyno at the latest.

Where standard input and output are a terminal, the process has one too, with
this one's size; Ctrl-C is the process's. Else it has pipes: any bytes pass, and
its errors come with its output. The exit status is the process's (128 and the
signal's number if one killed it).

One COMMAND is a line for the dyno's shell; with ARGs all are taken as they are.`,
		Example: `  manifold host exec web.1
  manifold host exec hello:web.1 'ps aux | head'
  manifold host exec web.1 tar c /app/log > log.tar`,
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: t.completeDyno,
		RunE: func(cmd *cobra.Command, args []string) error {
			s := session{in: os.Stdin, out: os.Stdout}
			s.terminal = !noTerminal && term.IsTerminal(int(s.in.Fd())) && term.IsTerminal(int(s.out.Fd()))
			return t.exec(cmd.Context(), args[0], commandLine(args[1:]), s)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows DYNO is the command's
	cmd.Flags().BoolVarP(&noTerminal, "no-tty", "T", false, "pipes even on a terminal")
	return cmd
}

// commandLine makes a line for the dyno's shell.
func commandLine(args []string) string {
	if len(args) > 0 && args[0] == "--" { // as other tools want it
		args = args[1:]
	}
	switch len(args) {
	case 0:
		return "exec bash" // of two shells one is enough
	case 1:
		return args[0]
	}
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}

// session is our end of a process in a dyno.
type session struct {
	in, out  *os.File
	terminal bool
}

// exec runs a command line in a dyno until it ends. Its error is an *Exit
// where the process ended otherwise than with 0.
func (t *tool) exec(ctx context.Context, dyno, command string, s session) error {
	request := manifold.Exec{Command: command, Attach: manifold.Attach{Terminal: s.terminal}}
	if s.terminal {
		request.Attach.Rows, request.Attach.Cols = s.window()
		if name := os.Getenv("TERM"); name != "" {
			request.Env = map[string]string{"TERM": name}
		}
	}
	line, err := t.upgrade(ctx, "/v1/dynos/"+url.PathEscape(dyno)+"/exec", request)
	if err != nil {
		return err
	}
	defer line.Close()
	defer context.AfterFunc(ctx, func() { line.Close() })() // the process gets its hangup
	if s.terminal {
		state, err := term.MakeRaw(int(s.in.Fd()))
		if err != nil {
			return fmt.Errorf("make the terminal raw: %w", err)
		}
		defer func() { _ = term.Restore(int(s.in.Fd()), state) }()
	}
	status, err := s.carry(line)
	switch {
	case ctx.Err() != nil:
		return &Exit{128 + int(unix.SIGINT)}
	case err != nil:
		return err
	case status != 0:
		return &Exit{status}
	}
	return nil
}

// upgrade posts a request whose connection becomes a line of frames.
func (t *tool) upgrade(ctx context.Context, path string, request any) (io.ReadWriteCloser, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", manifold.AttachProtocol)
	res, err := t.send(req)
	if err != nil {
		return nil, err
	}
	line, ok := res.Body.(io.ReadWriteCloser)
	if !ok || res.StatusCode != http.StatusSwitchingProtocols {
		res.Body.Close()
		return nil, fmt.Errorf("the agent answered %s where it should have switched to %s", res.Status, manifold.AttachProtocol)
	}
	return line, nil
}

func (s session) window() (rows, cols uint16) {
	size, err := unix.IoctlGetWinsize(int(s.out.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return size.Row, size.Col
}

// carry copies between our streams and the line until the process has ended,
// and returns its status. What waits for our input then is left behind: a read
// of a terminal cannot be called off, and this process is about to end.
func (s session) carry(line io.ReadWriter) (status int, err error) {
	to := &frames{w: line}
	go s.sendInput(to)
	if s.terminal {
		sizes := make(chan os.Signal, 1)
		signal.Notify(sizes, unix.SIGWINCH)
		defer signal.Stop(sizes)
		done := make(chan struct{})
		defer close(done)
		go func() {
			for {
				select {
				case <-sizes:
					rows, cols := s.window()
					_ = to.write(manifold.FrameWindow, manifold.WindowPayload(rows, cols))
				case <-done:
					return
				}
			}
		}()
	}
	from, buf := bufio.NewReader(line), make([]byte, manifold.MaxFrame)
	for {
		kind, payload, err := manifold.ReadFrame(from, buf)
		if err != nil {
			return 0, fmt.Errorf("the connection to the dyno broke (did the agent or the dyno end?): %w", err)
		}
		switch {
		case kind == manifold.FrameData:
			if _, err := s.out.Write(payload); errors.Is(err, unix.EPIPE) {
				return 128 + int(unix.SIGPIPE), nil
			} else if err != nil {
				return 0, fmt.Errorf("write the process's output: %w", err)
			}
		case kind == manifold.FrameExit && len(payload) == 4:
			return int(binary.BigEndian.Uint32(payload)), nil
		}
	}
}

func (s session) sendInput(to *frames) {
	buf := make([]byte, manifold.MaxFrame)
	for {
		n, err := s.in.Read(buf)
		if n > 0 && to.write(manifold.FrameData, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = to.write(manifold.FrameEnd, nil)
			return
		}
	}
}

// frames writes one frame at a time.
type frames struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frames) write(kind manifold.FrameKind, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return manifold.WriteFrame(f.w, kind, payload...)
}
