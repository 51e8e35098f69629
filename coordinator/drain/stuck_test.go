package drain

import (
	"context"
	"net"
	"testing"

	"manifold"
	"manifold/coordinator/logs"
	"manifold/test/bubble"
)

// The operator reads what is wrong with a server that takes nothing.
func TestAServerThatDoesNotRead(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		defer ours.Close()
		s := &syslog{drain: &drain{Drain: manifold.Drain{Token: "d.x"}}, conn: ours, ctx: context.Background()}
		if err := s.send([]logs.Line{{ID: 1, Text: "x"}}); err == nil || err.Error() != "the receiver does not read" {
			t.Errorf("%v", err)
		}
	})
}
