package hostile

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"manifold/test/platform"
)

const deadline = 3 * time.Minute

// target is the platform under attack.
type target struct {
	*platform.Instance
	t testing.TB
}

// start builds the programs and runs a platform until the test ends. Then
// nothing of it may be left on the machine.
func start(t testing.TB, resolvers string) *target {
	t.Helper()
	if err := platform.Build(); err != nil {
		t.Fatal(err)
	}
	p, err := platform.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p.Extra = []string{"MANIFOLD_RESOLVERS=" + resolvers, "MANIFOLD_API_RATE=1000000"}
	if err := p.WithoutSample(); err != nil {
		t.Fatal(err)
	}
	p.Cleanup(t)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return &target{p, t}
}

func (p *target) scale(app, typ string, quantity int) {
	p.t.Helper()
	p.Call(p.t, "PATCH", "/apps/"+app+"/formation/"+typ, map[string]any{"quantity": quantity}, nil)
}

// dyno is one line of the agent's ps.
type dyno struct {
	App     string `json:"app_name"`
	Name    string `json:"name"`
	Run     string `json:"run"`
	State   string `json:"state"`
	Addr    string `json:"addr"`
	Crashes int    `json:"crashes"`
}

// ps asks the agent's socket.
func (p *target) ps() (dynos []dyno, err error) {
	res, err := p.Agent().Get("http://agent/v1/ps")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return dynos, json.NewDecoder(res.Body).Decode(&dynos)
}

func (p *target) dyno(app, name string) (dyno, error) {
	dynos, err := p.ps()
	if err != nil {
		return dyno{}, err
	}
	i := slices.IndexFunc(dynos, func(d dyno) bool { return d.App == app && d.Name == name })
	if i < 0 {
		return dyno{}, fmt.Errorf("there is no dyno %s of %s", name, app)
	}
	return dynos[i], nil
}

// daemonPIDs are the process ids of this instance's daemons, and a few of the
// host's.
func (p *target) daemonPIDs() (pids []string) {
	pids = append(pids, "2", strconv.Itoa(os.Getpid()))
	out, _ := exec.Command("pgrep", "-f", platform.Programs+"/manifold").Output()
	return append(pids, strings.Fields(string(out))...)
}
