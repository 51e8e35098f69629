// Package test holds the end-to-end tests: they drive the built programs from
// outside, as a user and an operator do, on the real kernel.
package test

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"manifold/test/platform"
)

// shared is the platform most tests use, each with apps of its own. It is
// started by the first test that asks for it.
var shared struct {
	sync.Once
	*platform.Instance
	err error
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if err := platform.Build(); err != nil {
			fmt.Fprintln(os.Stderr, "end-to-end tests:", err)
			return 1
		}
		code := m.Run()
		fmt.Println("measured:", platform.Schema.Report())
		for _, v := range platform.Schema.Violations() {
			fmt.Println("against Heroku's schema:", v)
			code = 1
		}
		if err := showConformance(); err != nil {
			fmt.Fprintln(os.Stderr, "end-to-end tests:", err)
			code = 1
		}
		if shared.Instance != nil {
			if err := shared.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, "end-to-end tests: the shared platform:", err)
				code = 1
			}
			os.RemoveAll(shared.Dir)
		}
		return code
	}())
}

// running returns the shared platform.
func running(t *testing.T) *platform.Instance {
	t.Helper()
	shared.Do(func() {
		var dir string
		if dir, shared.err = os.MkdirTemp("", "manifold-test-"); shared.err == nil {
			shared.Instance, shared.err = platform.New(dir)
		}
		if shared.err == nil {
			shared.err = shared.Start()
		}
	})
	if shared.err != nil {
		t.Fatalf("start the shared platform: %v", shared.err)
	}
	return shared.Instance
}

// own returns a platform that is not started yet and is only this test's.
func own(t *testing.T) *platform.Instance {
	t.Helper()
	p, err := platform.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p.Cleanup(t)
	return p
}
