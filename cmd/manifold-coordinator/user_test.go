package main

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// Ctrl-C ends a command that waits for what a person types.
func TestCtrlCWhileAsked(t *testing.T) {
	typed, keys := io.Pipe()
	defer keys.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	cmd := &cobra.Command{}
	cmd.SetContext(ctx)
	cmd.SetIn(typed)
	ended := make(chan error, 1)
	go func() {
		_, err := readPassword(cmd)
		ended <- err
	}()
	interrupt()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("it ends with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("it waits on")
	}
}

// A word that is no command is an error, not a page of help and success: a script
// that says "user delete" must not believe that somebody's access has ended.
func TestUnknownUserCommand(t *testing.T) {
	cmd := command()
	cmd.SetArgs([]string{"user", "delete", "grace@example.com"})
	cmd.SetOut(io.Discard)
	if err := cmd.Execute(); err == nil {
		t.Error("user delete is taken for done")
	}
}
