// Package test holds the end-to-end tests: they drive the built programs from
// outside, as a user and an operator do, on the real kernel. They must never
// import a room of the platform: what they know of it is what its README says.
//
//	main_test.go      builds the programs, owns the shared platform
//	instance_test.go  one running platform and its settings
//	client_test.go    what a user does to it: API, git, requests, heroku CLI
//	host_test.go      what the host shows of it: mounts, cgroups, links, rules
package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// cache holds what is slow to make and the same in every run.
var cache = func() string {
	if dir := os.Getenv("MANIFOLD_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/manifold"
}()

// programs is where the built programs are.
var programs, _ = filepath.Abs("../bin")

// shared is the platform most tests use, each with apps of its own. It is
// started by the first test that asks for it.
var shared struct {
	sync.Once
	*instance
	err error
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "end-to-end tests:", err)
			return 1
		}
		code := m.Run()
		if shared.instance != nil {
			if err := shared.stop(); err != nil {
				fmt.Fprintln(os.Stderr, "end-to-end tests: the shared platform:", err)
				code = 1
			}
			os.RemoveAll(shared.dir)
		}
		return code
	}())
}

// prepare builds the programs and the stack image.
func prepare() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("these tests need root: they run dynos on this kernel")
	}
	build := exec.Command("make", "-C", "..", "build")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("make build: %w", err)
	}
	stack := exec.Command(filepath.Join(programs, "manifold"), "stack", "build")
	stack.Env = append(os.Environ(), "MANIFOLD_HOME="+cache)
	stack.Stdout, stack.Stderr = os.Stderr, os.Stderr
	if err := stack.Run(); err != nil {
		return fmt.Errorf("build the stack in %s: %w", cache, err)
	}
	return nil
}

// platform returns the shared platform, running.
func platform(t *testing.T) *instance {
	t.Helper()
	shared.Do(func() {
		var dir string
		if dir, shared.err = os.MkdirTemp("", "manifold-test-"); shared.err == nil {
			shared.instance, shared.err = newInstance(dir)
		}
		if shared.err == nil {
			shared.err = shared.start()
		}
	})
	if shared.err != nil {
		t.Fatalf("start the shared platform: %v", shared.err)
	}
	return shared.instance
}

// ownPlatform returns a platform that is not started yet and is only this
// test's. Whatever the test does, nothing of it is left afterwards.
func ownPlatform(t *testing.T) *instance {
	t.Helper()
	p, err := newInstance(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
		p.nothingLeft(t)
		if t.Failed() {
			t.Logf("what manifold run printed:\n%s", p.printed())
			p.logTails(t.Logf)
		}
	})
	return p
}
