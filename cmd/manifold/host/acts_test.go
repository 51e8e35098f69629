package host

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"manifold"
)

// The grace that somebody names reaches the agent, which refuses one it cannot
// heed: who asks for none must not get the dyno's own without a word.
func TestGraceIsTold(t *testing.T) {
	settings := manifold.Settings{Run: t.TempDir()}
	socket, err := net.Listen("unix", filepath.Join(settings.Run, "agent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 1)
	agent := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.RawQuery
		fmt.Fprint(w, "{}")
	}))
	agent.Listener.Close()
	agent.Listener = socket
	agent.Start()
	defer agent.Close()
	for flag, want := range map[string]string{"": "", "--grace=5s": "grace=5s", "--grace=0s": "grace=0s", "--grace=-5s": "grace=-5s"} {
		cmd := Command(settings)
		cmd.SetOut(io.Discard)
		cmd.SetArgs([]string{"stop", "web.1"})
		if flag != "" {
			cmd.SetArgs([]string{"stop", "web.1", flag})
		}
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := <-asked; got != want {
			t.Errorf("with %q the agent is asked with %q, want %q", flag, got, want)
		}
	}
}
