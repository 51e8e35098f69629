package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"manifold"
)

// TestEveryCommandHasAPage, and every shell reads its completions.
func TestEveryCommandHasAPage(t *testing.T) {
	root, dir := command(manifold.FromEnv(), nil), t.TempDir()
	root.SetArgs([]string{"man", dir})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	pages := 0
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" {
			return
		}
		name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
		text, err := os.ReadFile(filepath.Join(dir, "man/man1", name))
		if err != nil || !strings.Contains(string(text), ".SH SYNOPSIS") {
			t.Errorf("%s: %v", name, err)
		}
		pages++
		for _, sub := range c.Commands() {
			look(sub)
		}
	}
	look(root)
	if pages < 20 {
		t.Errorf("only %d pages", pages)
	}
	bash := filepath.Join(dir, "bash-completion/completions/manifold")
	if out, err := exec.Command("bash", "-n", bash).CombinedOutput(); err != nil {
		t.Errorf("bash: %v: %s", err, out)
	}
	for _, f := range []string{bash, filepath.Join(dir, "zsh/vendor-completions/_manifold"), filepath.Join(dir, "fish/vendor_completions.d/manifold.fish")} {
		if info, err := os.Stat(f); err != nil || info.Size() < 1000 {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// A word that is no command is an error wherever commands have some below them.
func TestUnknownCommands(t *testing.T) {
	for _, group := range []string{"stack", "host", "scheduler"} {
		root := command(manifold.FromEnv(), nil)
		root.SetArgs([]string{group, "nonsense"})
		root.SetOut(io.Discard)
		if err := root.Execute(); err == nil {
			t.Errorf("manifold %s nonsense is taken for done", group)
		}
	}
}
