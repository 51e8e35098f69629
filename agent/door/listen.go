package door

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// Group may open the socket, besides root, where the host has such a group.
const Group = "manifold"

// SocketPath is the socket's place below $MANIFOLD_RUN.
func SocketPath(run string) string { return filepath.Join(run, "agent.sock") }

// Listen opens the socket in run, which it makes if missing, or takes over the
// one that systemd holds there. A socket nobody answers on is a dead agent's
// and is taken over; a living agent's, or anything that is no socket, is left
// alone.
func Listen(run string, log *slog.Logger) (net.Listener, error) {
	if l := inherited(SocketPath(run), log); l != nil {
		return l, nil
	}
	l, err := listen(run)
	if err != nil {
		return nil, fmt.Errorf("open the agent's socket: %w", err)
	}
	return l, nil
}

func listen(run string) (net.Listener, error) {
	path := SocketPath(run)
	if err := os.MkdirAll(run, 0o755); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("%s is there and is not a socket; move it away", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("another agent answers on %s; give this one its own MANIFOLD_RUN", path)
	} else if errors.Is(err, unix.EAGAIN) { // its backlog is full: somebody listens
		return nil, fmt.Errorf("another agent is busy on %s; give this one its own MANIFOLD_RUN", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := admit(path); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// inherited is the socket at path on which systemd listens for us
// (sd_listen_fds(3)), or nil. It stays systemd's, mode and file: who knocks
// while the agent restarts waits for the next one.
func inherited(path string, log *slog.Logger) net.Listener {
	listeners, err := activation.Listeners()
	if err != nil {
		log.Warn("systemd's sockets cannot be taken over", "error", err)
	}
	var found net.Listener
	for _, l := range listeners {
		switch {
		case l == nil: // no stream socket
		case l.Addr().Network() == "unix" && l.Addr().String() == path && found == nil:
			found = l
		default:
			log.Warn("systemd listens where the agent's socket is not to be; let ListenStream= of manifold-agent.socket and MANIFOLD_RUN agree",
				"systemd", l.Addr().String(), "agent", path)
			l.Close()
		}
	}
	return found
}

// admit lets the group in. Until then the socket is root's alone: the umask
// of a daemon keeps others from writing.
func admit(path string) error {
	gid := 0
	if g, err := user.LookupGroup(Group); err == nil {
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return fmt.Errorf("group %s: %w", Group, err)
		}
	}
	if err := os.Chown(path, 0, gid); err != nil {
		return err
	}
	return os.Chmod(path, 0o660)
}

// Bounds on clients. Beyond the first only root is let in, so that somebody's
// thousand clients do not lock out whoever comes to see what is wrong.
const (
	maxClients     = 512
	maxRootClients = 64 // more
)

// limited turns clients away, in words, where there are too many.
type limited struct {
	net.Listener
	mu      sync.Mutex
	open    int
	refused chan struct{} // bounds those that are told so
	telling sync.WaitGroup
}

func limit(l net.Listener) net.Listener {
	return &limited{Listener: l, refused: make(chan struct{}, maxRootClients)}
}

const tooMany = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" +
	`{"id":"busy","message":"too many clients are on the agent's socket; try again"}` + "\n"

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		most := maxClients
		if who, err := peer(c); err == nil && who.UID == 0 {
			most += maxRootClients
		}
		if l.take(most) {
			return &counted{Conn: c, leave: sync.OnceFunc(l.leave)}, nil
		}
		l.refuse(c)
	}
}

// refuse says why and hangs up; where too many are to be told it only hangs up.
// It speaks when it was spoken to: what comes before a request is no answer to
// it, and an HTTP client would only report a broken connection.
func (l *limited) refuse(c net.Conn) {
	select {
	case l.refused <- struct{}{}:
	default:
		c.Close()
		return
	}
	l.telling.Go(func() {
		defer func() { <-l.refused }()
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			return
		}
		_, _ = c.Write([]byte(tooMany))
		if half, ok := c.(*net.UnixConn); ok {
			_ = half.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(c, maxBody)) // what is not read would reset the answer
	})
}

// Close waits for those who are being told.
func (l *limited) Close() error {
	err := l.Listener.Close()
	l.telling.Wait()
	return err
}

func (l *limited) take(most int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= most {
		return false
	}
	l.open++
	return true
}

func (l *limited) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
}

// counted is a client that was let in.
type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}

// NetConn gives the connection below, where a half-close or credentials are
// asked for.
func (c *counted) NetConn() net.Conn { return c.Conn }
