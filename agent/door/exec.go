package door

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"manifold"
)

// exec makes the connection the terminal, or the pipes, of a process in a
// dyno. The request's body is a manifold.Exec with Command and Attach; the
// answer is an upgrade to manifold.AttachProtocol, in which the door is the
// side that is called the agent there. What goes wrong before is answered as
// any other error.
func (d *Door) exec(w http.ResponseWriter, r *http.Request) error {
	if r.ProtoMajor != 1 || !strings.EqualFold(r.Header.Get("Upgrade"), manifold.AttachProtocol) {
		return refuse(http.StatusUpgradeRequired, "upgrade_required", "this path is for connections over HTTP/1.1 that upgrade to %s", manifold.AttachProtocol)
	}
	d.sessions.Add(1)
	defer d.sessions.Done()
	var e manifold.Exec
	body, err := io.ReadAll(r.Body) // bounded; whatever follows it are frames
	if err == nil {
		err = json.Unmarshal(body, &e)
	}
	if err != nil || e.Command == "" || len(e.Command) > manifold.MaxCommand {
		return refuse(http.StatusBadRequest, "bad_request", "the body must be JSON with a command of 1 to %d bytes", manifold.MaxCommand)
	}
	s, err := d.one(r.PathValue("dyno"))
	if err != nil {
		return err
	}
	carry, err := d.agent.Exec(r.Context(), s.Assignment, e)
	if err != nil {
		return err
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		carry(nothing{})
		return fmt.Errorf("take over the connection: %w", err)
	}
	line := &taken{Conn: conn, reader: buffered.Reader}
	_ = conn.SetDeadline(time.Time{})
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", manifold.AttachProtocol); err != nil {
		conn.Close() // the client left: its process gets its hangup
	}
	carry(line)
	return nil
}

// taken is a connection whose first bytes were read already.
type taken struct {
	net.Conn
	reader *bufio.Reader
}

func (t *taken) Read(p []byte) (int, error) { return t.reader.Read(p) }

// nothing is the line of a client that is not there.
type nothing struct{}

func (nothing) Read([]byte) (int, error)  { return 0, io.EOF }
func (nothing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
func (nothing) Close() error              { return nil }
