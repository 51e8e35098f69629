package attach

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"manifold"
)

// The SSH form: behind an HTTP request for the secret, which is answered with
// 101, the CLI has the machine's own ssh speak to us. That brings what the
// rendezvous protocol lacks: bytes as they are, an end of input, and news of
// the window's size. The secret is the authentication, and the session's only
// command was named long before: what ssh asks to run does not matter.

// sshTime bounds the handshake, until the process is asked for.
const sshTime = 20 * time.Second

// sshConfig has a host key for the life of this process: the CLI verifies none.
func sshConfig() *ssh.ServerConfig {
	cfg := &ssh.ServerConfig{NoClientAuth: true, ServerVersion: "SSH-2.0-Manifold"}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		panic(err) // a key of this type is one
	}
	cfg.AddHostKey(signer)
	return cfg
}

// sshClient is a client of this form.
type sshClient struct {
	ssh.Channel
	conn *tls.Conn
}

func (c *sshClient) begin() error                  { return nil }
func (c *sshClient) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }
func (c *sshClient) Close() error                  { return c.conn.Close() }

// finish leaves it to ssh to close the connection.
func (c *sshClient) finish(status int) {
	_, _ = c.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
	_ = c.Channel.Close()
}

// readConn reads what bufio has read ahead.
type readConn struct {
	net.Conn
	input *bufio.Reader
}

func (c readConn) Read(p []byte) (int, error) { return c.input.Read(p) }

func (r *Room) serveSSH(s *session, conn *tls.Conn, input *bufio.Reader) error {
	if err := conn.SetDeadline(time.Now().Add(sshTime)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"); err != nil {
		return err
	}
	// The CLI throws away what comes in one piece with the 101, and its ssh
	// speaks unasked: nothing is said before it does.
	if _, err := input.Peek(1); err != nil {
		return fmt.Errorf("ssh did not begin: %w", err)
	}
	link, channels, requests, err := ssh.NewServerConn(readConn{conn, input}, r.ssh)
	if err != nil {
		return fmt.Errorf("ssh handshake: %w", err)
	}
	// A connection whose requests and channels nobody reads never ends, not even
	// when it is closed.
	var asks <-chan *ssh.Request
	defer func() {
		_ = link.Close()
		if asks != nil {
			ssh.DiscardRequests(asks)
		}
		_ = link.Wait()
	}()
	r.work.Go(func() { ssh.DiscardRequests(requests) }) // keep-alives are answered by it
	channel, asks, err := onlySession(channels)
	r.work.Go(func() { refuseChannels(channels) })
	if err != nil {
		return err
	}
	attach, err := askedFor(asks)
	if err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if !s.come(&sshClient{channel, conn}, attach) {
		return errOver
	}
	r.work.Go(func() { s.followWindow(asks) })
	r.work.Go(func() { s.takeInput(channel, link) })
	_ = link.Wait() // the end of the connection is the loss of the client
	return nil
}

// onlySession accepts the one channel that a session has.
func onlySession(channels <-chan ssh.NewChannel) (ssh.Channel, <-chan *ssh.Request, error) {
	for c := range channels {
		if c.ChannelType() == "session" {
			return c.Accept()
		}
		_ = c.Reject(ssh.UnknownChannelType, "there are sessions only")
	}
	return nil, nil, errors.New("ssh went before it opened a session")
}

func refuseChannels(channels <-chan ssh.NewChannel) {
	for c := range channels {
		_ = c.Reject(ssh.Prohibited, "there is one session only")
	}
}

// window is a terminal's size in RFC 4254, 6.2 and 6.7.
type window struct{ Cols, Rows, Width, Height uint32 }

func (w window) size() (rows, cols uint16) {
	return uint16(min(w.Rows, math.MaxUint16)), uint16(min(w.Cols, math.MaxUint16))
}

// askedFor reads requests up to the one for the process.
func askedFor(asks <-chan *ssh.Request) (attach manifold.Attach, err error) {
	for ask := range asks {
		switch ask.Type {
		case "pty-req":
			var pty struct {
				Term                      string
				Cols, Rows, Width, Height uint32
				Modes                     string
			}
			err := ssh.Unmarshal(ask.Payload, &pty)
			attach.Terminal = err == nil
			attach.Rows, attach.Cols = window{pty.Cols, pty.Rows, 0, 0}.size()
			_ = ask.Reply(err == nil, nil)
		case "env":
			_ = ask.Reply(true, nil) // the API was told the environment
		case "shell", "exec":
			return attach, ask.Reply(true, nil)
		default:
			_ = ask.Reply(false, nil)
		}
	}
	return attach, errors.New("ssh went before it asked for the process")
}

// followWindow tells the process of its window's size.
func (s *session) followWindow(asks <-chan *ssh.Request) {
	for ask := range asks {
		var w window
		ok := ask.Type == "window-change" && ssh.Unmarshal(ask.Payload, &w) == nil
		if ok {
			s.send(manifold.FrameWindow, manifold.WindowPayload(w.size())...)
		}
		_ = ask.Reply(ok, nil)
	}
}

// takeInput carries what the user sends until its end, or the channel's.
func (s *session) takeInput(channel io.Reader, link ssh.Conn) {
	buf := make([]byte, manifold.MaxFrame)
	for {
		n, err := channel.Read(buf)
		if n > 0 {
			s.send(manifold.FrameData, buf[:n]...)
		}
		if err == nil {
			continue
		}
		// A connection that is lost ends the channel too, and a process must
		// not take what it has by then for the whole: only a client that
		// still answers has ended its input.
		if _, _, err := link.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			return
		}
		if s.Attach.Terminal {
			s.send(manifold.FrameData, ctrlD) // a terminal knows no other end
		}
		s.send(manifold.FrameEnd)
		return
	}
}
