package platform

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Cache holds what is slow to make and the same in every run.
var Cache = func() string {
	if dir := os.Getenv("MANIFOLD_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/manifold"
}()

// root is the top of the source tree.
var root = func() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../..")
}()

// Programs is where the built programs are.
var Programs = filepath.Join(root, "bin")

// Build builds the programs and, if it is not in the cache, the stack image.
func Build() error {
	if os.Geteuid() != 0 {
		return errors.New("these tests need root: they run dynos on this kernel")
	}
	make := exec.Command("make", "-s", "-C", root, "build")
	stack := exec.Command(filepath.Join(Programs, "manifold"), "stack", "build")
	stack.Env = append(os.Environ(), "MANIFOLD_HOME="+Cache)
	for _, cmd := range []*exec.Cmd{make, stack} {
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", cmd, err)
		}
	}
	return nil
}
